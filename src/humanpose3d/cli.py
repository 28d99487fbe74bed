"""The commands: settings from command line, environment and YAML; one call; one summary line; an exit code.

`humanpose3d <command>` and the six scripts are the same functions. No stage's logic lives here.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import tyro
import yaml

from humanpose3d import config
from humanpose3d.reports import StageReport

ENVIRONMENT_PREFIX = "HUMANPOSE3D_"
SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
CASES = "configs/hourglass"  # where --case finds its presets
RESUME = ("--resume", "-c", "--continue", "--continue-exp", "--continue_exp")
C = TypeVar("C")


def parse(command: type[C], args: Sequence[str], prog: str) -> C:
    """The command's settings. Later wins: defaults, --config YAML by YAML, HUMANPOSE3D_<FIELD>, command line."""
    return tyro.cli(command, args=_one_command_line(command, args), prog=prog, description=getdoc(command))


def given_fields(command: type, args: Sequence[str]) -> frozenset[str]:
    """The fields that were said, in whichever of the three ways, and be it with the value they have by default."""
    names: dict[str, str] = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        flag = name.replace("_", "-")
        aliases = [
            alias for word in getattr(hint, "__metadata__", ()) for alias in getattr(word, "aliases", None) or ()
        ]
        names |= dict.fromkeys(["--" + flag, "--no-" + flag, *aliases], name)
    # --weights.mse=1 -> --weights
    flags = (re.split("[=.]", word)[0].replace("_", "-") for word in _one_command_line(command, args))
    return frozenset(names[flag] for flag in flags if flag in names)


def _one_command_line(command: type, args: Sequence[str]) -> list[str]:
    """All that was said, weakest first: the parser lets a later value override an earlier one."""
    args = _with_bare_resume(_with_case(args))
    hints = get_type_hints(command)
    paths = _config_paths(args) or [path for path in [os.environ.get(ENVIRONMENT_PREFIX + "CONFIG")] if path]
    placed = {name for name, hint in get_type_hints(command, include_extras=True).items() if _is_positional(hint)}
    fields = {name: hint for name, hint in hints.items() if name not in placed}
    of_yaml = [argument for path in paths for argument in _from_yaml(Path(path), set(fields), placed)]
    return [*of_yaml, *_from_environment(fields), *args]


def run(
    command: type, stage: Callable[[Any], StageReport], args: Sequence[str] | None = None, prog: str | None = None
) -> int:
    """Parse, call, print the summary. A user's mistake is one line on standard error and exit code 2."""
    # Before torch is imported: threads that wait by spinning make a shared machine several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        settings: Any = parse(command, sys.argv[1:] if args is None else args, prog or Path(sys.argv[0]).name)
        report = stage(settings)
    except (ValueError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; it may not be imported
            raise
        advice = "lower --batch-size (main.py: raise --accumulate as much), or take --model-size small"
        print(f"error: the GPU's memory is full; {advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"stopped; {stop or 'the same command goes on from here'}", file=sys.stderr)
        return 130
    print(report.summary)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for fault in report.faults:
        print(f"wrong: {fault}", file=sys.stderr)
    if report.total_skipped:
        names = report.skipped_names()
        where = f": {names}" if names else f" (named in {report.stage}_report.json)"
        print(report.skipped_line() + where, file=sys.stderr)
    return report.exit_code


def preprocess(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.PreprocessConfig) -> StageReport:
        from humanpose3d.preprocess import preprocess_folders

        return preprocess_folders(**_arguments(settings))

    return run(config.PreprocessConfig, stage, args, prog)


def chunk(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.ChunkConfig) -> StageReport:
        from humanpose3d.chunks.build import build_chunks

        return build_chunks(**_arguments(settings))

    return run(config.ChunkConfig, stage, args, prog)


def split(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.SplitConfig) -> StageReport:
        from humanpose3d.chunks.split import split_by_subject

        return split_by_subject(**_arguments(settings))

    return run(config.SplitConfig, stage, args, prog)


def rechunk(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.RechunkConfig) -> StageReport:
        from humanpose3d.chunks.rechunk import rechunk

        return rechunk(**_arguments(settings))

    return run(config.RechunkConfig, stage, args, prog)


def train(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.TrainConfig) -> StageReport:
        from humanpose3d.train import train_model

        return train_model(settings, given_fields(config.TrainConfig, sys.argv[1:] if args is None else args))

    return run(config.TrainConfig, stage, args, prog)


def infer(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.InferConfig) -> StageReport:
        from humanpose3d.inference import infer

        return infer(**_arguments(settings))

    return run(config.InferConfig, stage, args, prog)


def plan(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.PlanConfig) -> StageReport:
        from humanpose3d.planning import plan

        return plan(**_arguments(settings))

    return run(config.PlanConfig, stage, args, prog)


def index(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.IndexConfig) -> StageReport:
        from humanpose3d.chunks.layout import index_chunks
        from humanpose3d.chunks.parts import finish_shards
        from humanpose3d.remotes import open_store

        report, store = StageReport("index"), open_store(settings.location)
        found = finish_shards(store) or index_chunks(store)
        report.summary = f"indexed {len(found.chunks)} chunks, {found.samples} samples, in {settings.location}"
        return report

    return run(config.IndexConfig, stage, args, prog)


def strip(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.StripConfig) -> StageReport:
        from humanpose3d.models.checkpoint import strip_checkpoint

        report = StageReport("strip")
        size = strip_checkpoint(**_arguments(settings))
        report.summary = f"wrote the network alone, {size / 1e6:.1f} MB, to {settings.out}"
        return report

    return run(config.StripConfig, stage, args, prog)


def fit_body(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.FitBodyConfig) -> StageReport:
        from humanpose3d.fit_body import fit_body

        return fit_body(**_arguments(settings))

    return run(config.FitBodyConfig, stage, args, prog)


def doctor_install(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.DoctorInstallConfig) -> StageReport:
        from humanpose3d.installation import examine

        return examine(settings.cache_dir)

    return run(config.DoctorInstallConfig, stage, args, prog)


def inspect(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.InspectConfig) -> StageReport:
        arguments = _arguments(settings)
        of_shuffle, batch_size = arguments.pop("shuffle"), arguments.pop("batch_size")
        if of_shuffle:
            from humanpose3d.inspect.shuffle_report import inspect_shuffle

            seed = config.TrainConfig.random_seed  # the order that a training without other wishes reads
            places = {name: arguments[name] for name in ("location", "report", "temp_dir")}
            return inspect_shuffle(batch_size=batch_size, seed=seed, **places)
        from humanpose3d.inspect.report import inspect_chunks

        return inspect_chunks(**arguments)

    return run(config.InspectConfig, stage, args, prog)


def fake(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    def stage(settings: config.FakeConfig) -> StageReport:
        from humanpose3d.files import write_report
        from humanpose3d.studio.layouts import write_corpus

        report = write_corpus(**_arguments(settings))
        write_report(settings.out, report)
        return report

    return run(config.FakeConfig, stage, args, prog)


COMMANDS: dict[str, tuple[Callable[[Sequence[str] | None, str | None], int], str]] = {
    "preprocess": (preprocess, "frames -> keypoints and depth maps beside them"),
    "chunk": (chunk, "a corpus and its keypoints and depth -> tar chunks"),
    "split": (split, "chunks -> train/ and test/ by subject"),
    "rechunk": (rechunk, "chunks -> globally shuffled chunks"),
    "train": (train, "chunks -> checkpoints and TensorBoard; --evaluate measures one"),
    "infer": (infer, "images -> 3D poses and pictures"),
    "strip": (strip, "a training's checkpoint -> the network alone, small enough to share"),
    "fit-body": (fit_body, "chunks -> the same with SMPL's pose and shape, fitted to their joints"),
    "doctor-install": (doctor_install, "what is installed, what is missing, what to do about it"),
    "inspect": (inspect, "what is wrong with chunks, and of which subject and camera"),
    "plan": (plan, "what so many frames will cost: time, bytes and cloud requests of each stage"),
    "index": (index, "index chunks that somebody else wrote"),
    "fake": (fake, "write the studio's people in a corpus's layout"),
}


def main() -> int:
    """`humanpose3d <command> ...`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: humanpose3d <command> [--help] ...\n")
        print("\n".join(f"  {name:<16}{what}" for name, (_, what) in COMMANDS.items()))
        return 0
    if arguments[0] not in COMMANDS:
        print(f"error: unknown command '{arguments[0]}'; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command, _ = COMMANDS[arguments[0]]
    return command(arguments[1:], f"humanpose3d {arguments[0]}")


def _arguments(settings: Any) -> dict[str, Any]:
    """The stage's keyword arguments: the command's own fields, whose names they share."""
    own = {field.name for field in dataclasses.fields(settings)} - {
        field.name for field in dataclasses.fields(config.Command)
    }  # type: ignore[arg-type]
    return {name: getattr(settings, name) for name in own}


def _is_positional(hint: Any) -> bool:
    return any(mark is tyro.conf.Positional for mark in getattr(hint, "__metadata__", ()))


def _config_paths(args: Sequence[str]) -> list[str]:
    """Of all --config, in their order."""
    words = [argument.partition("=") for argument in args]
    return [
        value if joined else "".join(args[position + 1 : position + 2])
        for position, (flag, joined, value) in enumerate(words)
        if flag in ("--config", "--cfg")
    ]


def _with_case(args: Sequence[str]) -> list[str]:
    """`--case N` is `--config configs/hourglass/caseN.yaml`, wherever the program is called from."""
    result = list(args)
    for position, argument in enumerate(args):
        flag, joined, value = argument.partition("=")
        if flag != "--case":
            continue
        number = value if joined else (args[position + 1] if position + 1 < len(args) else "")
        places = (Path(sys.argv[0]).parent, Path(), *Path(__file__).parents[2:3])
        found = [path for place in places if (path := place / CASES / f"case{number}.yaml").is_file()]
        if not found or not number.isdigit():
            raise ValueError(f"--case {number}: the study's cases are 1 to 8, {CASES}/case1.yaml to case8.yaml")
        result[position : position + (1 if joined else 2)] = ["--config", str(found[0])]
        break
    return result


def _with_bare_resume(args: Sequence[str]) -> list[str]:
    """`--resume` alone, or one of its aliases, means the newest run."""
    result: list[str] = []
    for position, argument in enumerate(args):
        result.append(argument)
        is_last = position + 1 == len(args) or args[position + 1].startswith("-")
        if is_last and argument in RESUME:
            result.append("latest")
    return result


def _from_yaml(path: Path, fields: set[str], positional: set[str]) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; --config takes a YAML file, such as those in configs/")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold 'field: value' lines")
    if placed := sorted(set(values) & positional):
        raise ValueError(f"{path}: {', '.join(placed)} belongs on the command line, by its place and without a name")
    unknown = sorted(set(values) - fields)
    if unknown:
        raise ValueError(f"{path}: unknown field {', '.join(unknown)}; known: {', '.join(sorted(fields))}")
    return [argument for name, value in values.items() for argument in _as_arguments(name, value)]


def _from_environment(hints: Mapping[str, Any]) -> list[str]:
    found = []
    for name, hint in sorted(hints.items(), key=lambda item: item[0]):
        text = os.environ.get(ENVIRONMENT_PREFIX + name.upper(), "")
        if text and hint is bool:
            if text.lower() not in SWITCHES:
                raise ValueError(f"{ENVIRONMENT_PREFIX}{name.upper()}={text}: say one of {', '.join(SWITCHES)}")
            found += _as_arguments(name, SWITCHES[text.lower()])
        elif text:
            found += _as_arguments(name, text.split() if get_origin(hint) is tuple else text)
    return found


def _as_arguments(name: str, value: Any) -> list[str]:
    """One field as the command line would say it; nested fields as --outer.inner."""
    if isinstance(value, dict):
        return [argument for inner, item in value.items() for argument in _as_arguments(f"{name}.{inner}", item)]
    if value is None:
        return []
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        head, dot, last = flag.rpartition(".")
        off = f"{head}.no-{last}" if dot else "--no-" + flag[2:]
        # --no-depth and its like have no opposite: off is what they are unless said.
        return [flag] if value else ([] if name.startswith("no_") else [off])
    return [flag, *map(str, value)] if isinstance(value, list) else [flag, str(value)]


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
