"""attnsim: how long distributed attention takes, what fits in memory, and where the time goes, before renting a node.

This module has the public names and the command line's root. Both import what they need when it is used, so that
``import attnsim`` and ``attnsim --help`` are quick.

>>> import attnsim
>>> request = attnsim.SimulationRequest(model="llama-3.1-8b", seq_len="128k", gpus=8, topology="dgx-h100")
>>> request.resolve().workload.heads
32
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from simulator.planning.plan import PlanResult
    from simulator.planning.sweep import Row
    from simulator.progress import Progress
    from simulator.request import SimulationRequest
    from simulator.result import Comparison, SimulationResult

__version__ = "0.1.0"

PACKAGES = ("traces", "cost_models", "simulator", "validators")

_PUBLIC = {
    "AttentionWorkload": "cost_models.workload",
    "ClusterTopology": "cost_models.topology",
    "HardwareProfile": "cost_models.hardware",
    "InputError": "traces.errors",
    "Mask": "cost_models.masks",
    "ModelShape": "cost_models.models",
    "Refused": "simulator.result",
    "SimulationRequest": "simulator.request",
    "SimulationResult": "simulator.result",
    "Timeline": "traces.timeline",
    "load_hardware": "cost_models.hardware",
    "load_model": "cost_models.models",
    "load_topology": "cost_models.topology",
    "parse_mask": "cost_models.masks",
}
"""Public names and the modules that have them."""

_COMMANDS = {
    "simulate": "simulator.commands",
    "compare": "simulator.commands",
    "topology": "simulator.commands",
    "choices": "simulator.choices_command",
    "plan": "simulator.planning.commands",
    "sweep": "simulator.planning.commands",
    "dashboard": "simulator.dashboard.commands",
    "replay": "simulator.replay.commands",
    "workflow": "simulator.workflow_commands",
    "mixers": "simulator.workflow_commands",
    "trace": "simulator.trace_commands",
    "validate": "validators.validation.commands",
    "calibrate": "validators.calibrate",
}
"""Commands and the modules whose ``app`` has them."""

__all__ = [*_PUBLIC, "compare", "main", "plan", "simulate", "sweep"]  # pyright: ignore[reportUnsupportedDunderAll]


def simulate(
    request: SimulationRequest | None = None, *, progress: Progress | None = None, **options: Any
) -> SimulationResult:
    """Predict time, memory and traffic of one schedule.

    Parameters
    ----------
    request : what to simulate; or else its fields as ``options``, text as on the command line or objects.
    progress : called with what is done, the number done and the total.

    Raises
    ------
    InputError
        Where the request cannot be simulated.
    """
    asked = _request(request, options)
    from simulator.simulate import simulate as run

    return run(asked, progress)


def compare(
    request: SimulationRequest | None = None, *, progress: Progress | None = None, **options: Any
) -> Comparison:
    """Rank all schedules: exact ones by time, then approximate ones by time, then those refused, as a list.

    Parameters
    ----------
    request, progress, options : as for :func:`simulate`, without a schedule.

    Raises
    ------
    InputError
        Where the request itself is wrong.
    """
    asked = _request(request, options)
    from simulator.compare import compare as run

    return run(asked, progress)


def plan(
    request: SimulationRequest | None = None,
    *,
    objective: str = "time",
    top: int = 5,
    axes: Mapping[str, Sequence[Any]] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PlanResult:
    """Search schedules, degrees, kernels and checkpointing for the best few, and say why the others are not.

    Parameters
    ----------
    request, progress, options : as for :func:`simulate`, without a schedule.
    objective : time, throughput, memory or cost.
    top : candidates to return.
    axes : values to try of any option; None for those that the request leaves open.
    workers : processes; None for one per core.

    Raises
    ------
    InputError
        Where the request is wrong, or nothing can run.
    """
    asked = _request(request, options)
    from simulator.planning.plan import plan as run
    from simulator.planning.runners import open_runner

    with open_runner(workers) as runner:
        return run(asked, runner, objective=objective, top=top, axes=axes, progress=progress)


def sweep(
    axes: Mapping[str, Sequence[Any]],
    request: SimulationRequest | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Row]:
    """Simulate every combination of values; a row each, with its values, its numbers, or why it cannot run.

    Parameters
    ----------
    axes : values by option, the last varying fastest.
    request, progress, options : what does not vary, as for :func:`simulate`.
    workers : processes; None for one per core.

    Raises
    ------
    InputError
        Where there are too many combinations.
    """
    first = {name: values[0] for name, values in axes.items() if values}  # what varies need not be given besides
    asked = _request(request, options if request is not None else first | options)
    from simulator.planning.runners import open_runner
    from simulator.planning.sweep import run_sweep

    with open_runner(workers) as runner:
        return run_sweep(asked, axes, runner, progress=progress)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 and one line on standard error where the input cannot be used.

    What attnsim itself gets wrong is one line too, unless ``ATTNSIM_DEBUG`` is set: then its traceback is shown.
    """
    from traces.errors import InputError

    try:
        asked = arguments or sys.argv[1:] or ["--help"]
        sys.exit(_root()(asked, prog_name="attnsim", standalone_mode=False) or 0)
    except InputError as error:
        _fail(error.message)
    except OverflowError as error:
        _raise_if_debugging()
        _fail(f"a number is too large: got {error}, expected times below 2^63 ns and sizes below 2^63 bytes; "
              "use a shorter sequence, a smaller batch or more GPUs")  # fmt: skip
    except MemoryError:
        _raise_if_debugging()
        _fail("this machine has too little memory: expected fewer GPUs, operations or draws; use --engine maxplus")
    except Exception as error:
        if hasattr(error, "format_message"):  # what click makes of options that it cannot parse
            _fail(f"{error.format_message().rstrip('.')}; see {_command_of(error)} --help")
        _raise_if_debugging()
        _fail(f"attnsim failed, which is a defect of its own: got {type(error).__name__}: {error}; "
              "please report it with the command; ATTNSIM_DEBUG=1 shows where")  # fmt: skip


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _command_of(error: Any) -> str:
    """The command whose options click could not parse."""
    context = getattr(error, "ctx", None)
    return context.command_path if context else "attnsim"


def _raise_if_debugging() -> None:
    """Within an except clause: raise again if the user asks for tracebacks."""
    if os.environ.get("ATTNSIM_DEBUG"):
        raise


def _request(request: SimulationRequest | None, options: dict[str, Any]) -> SimulationRequest:
    from simulator.request import SimulationRequest

    if request is None:
        return SimulationRequest(**options)
    if options:
        raise TypeError(f"give a request or options, not both: {', '.join(options)}")
    return request


def _root() -> Any:
    """The root command; its subcommands are imported when they are run or listed."""
    import typer
    from typer.core import TyperGroup

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: object) -> list[str]:
            return list(_COMMANDS)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in _COMMANDS:
                return None
            app = typer.main.get_command(importlib.import_module(_COMMANDS[cmd_name]).app)
            return app.get_command(ctx, cmd_name)  # type: ignore[attr-defined]

    root = typer.Typer(cls=LazyGroup, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

    @root.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ) -> None:
        """Plan distributed attention: how long it takes, what fits in memory, and where the time goes."""

    return root


def _print_version(wanted: bool) -> None:
    if wanted:
        print("attnsim", __version__)
        sys.exit()


def _check_not_shadowed() -> None:
    """Refuse to go on where another distribution's package hides one of ours: all lie beside this file."""
    ours = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if found != ours:
            raise ImportError(
                f"attnsim needs its own package {name!r} in {ours}, but Python finds {found or 'none'}: another "
                f"distribution or folder named {name!r} hides it; uninstall it, or use a virtual environment of its own"
            )


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'attnsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


_check_not_shadowed()
