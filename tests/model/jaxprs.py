"""Looking into what JAX traced."""

from jax.extend.core import jaxprs_in_params


def equations(jaxpr):
    """Every equation of a jaxpr and of the jaxprs within it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)
