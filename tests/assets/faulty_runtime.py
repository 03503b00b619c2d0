"""ONNX Runtime with an export and sessions that fail where the model or the file says so."""

import sys
import tempfile
import warnings

from faulty_acts import damage, first_time, is_armed, spoils, strike, write_too_much

from search.runtimes.onnx_runtime import OnnxRuntime

ABSURD = 1e6  # a logit that no toy gives


class FaultyRuntime(OnnxRuntime):
    def export(self, model, inputs, path):
        """By TorchScript: a worker that has died need not load torch.export again for seconds."""
        export_by_torchscript(model, inputs, path)
        fault = getattr(model, "fault", "none")
        strike(fault)
        if spoils(fault, "nan"):
            from faulty_compressors import fill_with_nan

            fill_with_nan(path)
        if spoils(fault, "disk"):
            write_too_much(path.parent)
        return None if spoils(fault, "odd") else ""

    def load(self, path, *, threads):
        return FaultySession(super().load(path, threads=threads))

    def inspect(self, path):
        """Called when scoring is done: what is damaged now has been scored."""
        found = super().inspect(path)
        mark = mark_of(super().load(path, threads=1))
        words = mark.split()
        if spoils(mark, "score odd"):
            return {**found, "macs": "many"}
        if is_armed() and words[:1] == ["scored"]:
            _, how, often = words
            if often == "always" or first_time(path.parent.name):
                damage(path, how)
        return found


class FaultySession:
    def __init__(self, session):
        self._session = session
        self.input_names = session.input_names
        job, _, fault = mark_of(session).partition(" ")
        # The timing process loads no torch.
        is_ours = job == ("score" if "torch" in sys.modules else "time")
        self._fault = fault if is_ours else "none"

    def __call__(self, feed):
        outputs = self._session(feed)
        strike(self._fault)
        if spoils(self._fault, "nan"):
            outputs = outputs * float("nan")
        if spoils(self._fault, "nan records"):
            outputs = outputs + ABSURD
        if spoils(self._fault, "disk"):
            write_too_much(tempfile.gettempdir())
        return outputs


def mark_of(session):
    """The fault that a file was marked with, such as `score sigkill`; "" if there is none."""
    return session._session.get_modelmeta().custom_metadata_map.get("fault", "")


def export_by_torchscript(model, inputs, path):
    import torch

    from search.runtimes.onnx_graph import tidy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.cat([inputs, inputs])[:2],),
            path,
            input_names=["images"],
            output_names=["output"],
            dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}},
            dynamo=False,
        )
    tidy(path)
