"""CLUE in JAX: behaviour logs of several services -> one general-purpose embedding per user.

Reading order is the order of the data: config, data, model, losses, training, inference, export,
evaluation, report; `cli` calls one function of these per stage.

Dimension key, the letters at the end of array names (`z_bE` is [users on a device, embedding]):
`B` users in the global batch, `b` users on one device, `S` services, `T` behaviours in one view,
`U` distinct items in a group of users, `R` packed rows, `L` tokens in a packed row, `V` vocabulary,
`D` model width, `H` heads, `K` head width, `F` MLP width, `E` embedding width.
"""

__version__ = "0.1.0"

__all__ = ["UserEncoder", "__version__"]


def __getattr__(name: str) -> object:
    # Loaded when it is asked for: `import clue_jax` alone stays free of jax.
    if name == "UserEncoder":
        from clue_jax.encoder import UserEncoder

        return UserEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
