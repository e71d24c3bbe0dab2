"""What `prepare` uses of Apache Beam, in memory, and as unkind as a runner may be.

Elements come in any order and as copies; every bundle, of one element, runs twice, and only what
the second run yields counts.
"""

import pickle
import random
import sys
import traceback
import types


class Pipeline:
    def __init__(self, options):
        self.options, self.random, self.steps = options, random.Random(0), []

    def run(self):
        try:
            for step in self.steps:
                step.elements()
        except Exception:  # of a worker that is another process, its text is all there is
            raise RuntimeError(repr(traceback.format_exc())) from None
        return types.SimpleNamespace(wait_until_finish=lambda: self.options.state)


class Collection:
    """Elements that are made when they are asked for, once."""

    def __init__(self, pipeline, make):
        self.pipeline, self._make, self._made = pipeline, make, None
        pipeline.steps.append(self)

    def elements(self):
        if self._made is None:
            self._made = pickle.dumps(list(self._make()))
        found = pickle.loads(self._made)
        self.pipeline.random.shuffle(found)
        return found


class Transform:
    """Applied by `collections | "name" >> transform`."""

    def __rrshift__(self, name):
        return self

    def __ror__(self, source):
        first = source[0] if isinstance(source, tuple) else source
        pipeline = getattr(first, "pipeline", first)
        return self.of(pipeline, source)

    def of(self, pipeline, source):
        return Collection(pipeline, lambda: self.made(source))


class Create(Transform):
    def __init__(self, values):
        self.values = values

    def made(self, source):
        return self.values


class Reshuffle(Transform):
    def made(self, source):
        return source.elements()


class Flatten(Transform):
    def made(self, source):
        return [element for part in source for element in part.elements()]


class GroupByKey(Transform):
    def made(self, source):
        groups = {}
        for key, value in source.elements():
            groups.setdefault(key, []).append(value)
        return groups.items()


class ToList(Transform):
    def made(self, source):
        return [source.elements()]


class CombineGlobally(Transform):
    """In two parts, which are then combined; the parts may be of one or of no element."""

    def __init__(self, function):
        self.function = function

    def without_defaults(self):
        return self

    def made(self, source):
        found = source.elements()
        half = len(found) // 2
        parts = [self.function(part) for part in (found[:half], found[half:]) if part]
        return [self.function(parts)] if parts else []


class FlatMap(Transform):
    def __init__(self, function, *beside):
        self.function, self.beside = function, beside

    def with_outputs(self, *outputs):
        self.outputs = outputs
        return self

    def of(self, pipeline, source):
        every = Collection(pipeline, lambda: self.made(source))

        def named(output):
            return [tagged.value for tagged in every.elements() if tagged.tag == output]

        parts = {o: Collection(pipeline, lambda o=o: named(o)) for o in self.outputs}
        return types.SimpleNamespace(**parts)

    def made(self, source):
        found = []
        for element in source.elements():
            for run in range(2):
                beside = [
                    one.value() if isinstance(one, AsSingleton) else one for one in self.beside
                ]
                yielded = list(self.function(pickle.loads(pickle.dumps(element)), *beside))
                found += yielded if run else []
        assert {tagged.tag for tagged in found} <= set(self.outputs)
        return found


class AsSingleton:
    def __init__(self, collection):
        self.collection = collection

    def value(self):
        (found,) = self.collection.elements()
        return found


class TaggedOutput:
    def __init__(self, tag, value):
        self.tag, self.value = tag, value


class PipelineOptions:
    def __init__(self, flags):
        self.flags, self.state = flags, "DONE"
        for flag in flags:
            self.state = flag.partition("--state=")[2] or self.state

    def get_all_options(self):
        if "--bad" in self.flags:
            raise SystemExit(2)


def install(monkeypatch):
    """Makes `import apache_beam` import this."""
    beam = types.ModuleType("apache_beam")
    for kind in (Pipeline, Create, Reshuffle, Flatten, GroupByKey, CombineGlobally, FlatMap):
        setattr(beam, kind.__name__, kind)
    beam.combiners = types.SimpleNamespace(ToList=ToList)
    beam.pvalue = types.ModuleType("apache_beam.pvalue")
    beam.pvalue.AsSingleton, beam.pvalue.TaggedOutput = AsSingleton, TaggedOutput
    beam.options = types.ModuleType("apache_beam.options")
    beam.options.pipeline_options = types.ModuleType("apache_beam.options.pipeline_options")
    beam.options.pipeline_options.PipelineOptions = PipelineOptions
    for module in (beam, beam.pvalue, beam.options, beam.options.pipeline_options):
        monkeypatch.setitem(sys.modules, module.__name__, module)
