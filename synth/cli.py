# SPDX-License-Identifier: MIT
"""`cosy-synth`: motifs to compounds; show, verify and explain profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracer.command import Group

if TYPE_CHECKING:
    from miner.motifs import MotifFile
    from synth.language import Profile
    from synth.store import Entry
    from synth.synthesize import Decision

MOTIFS_SUFFIX: Final = ".motifs.json"
WIDTH: Final = 78
NAMES: Final = 3  # of motifs that share a reason


class _Failure(click.ClickException):
    """One line on stderr, exit code 1."""

    def show(self, file: object = None) -> None:
        del file
        click.echo(f"cosy-synth: {self.message}", err=True)


class _Cli(Group):
    """The first word decides: a sub-command, or the first of MOTIFS."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [arg for arg in args if not arg.startswith("-")]
        own = [arg for arg in args if arg in ("-h", "--help", "--version")]
        if args and not own and (not words or args[0] not in self.commands):
            args = ["synthesize", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Cli,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="MOTIFS... [-o PROFILE] [--force] [--install] | COMMAND PROFILE",
    no_args_is_help=True,
)
@click.version_option(package_name="cosy", prog_name="cosy-synth")
def main() -> None:
    """Make compounds from motif files (see cosy-mine), or look at a profile of compounds.

    `cosy-synth MOTIFS... [-o NAME]` writes NAME.cosy (text, for people) and NAME.img (what
    cosy-auto uses); without -o the name is that of the first motif file. --force replaces files,
    --install makes it the profile of the traced program, so that cosy-auto finds it.

    PROFILE is a file, or one of those that were learnt, by the program's name or build-id.

    Exit code: 0 done, 1 the input cannot be used or no compound is worth it, 2 wrong usage.
    """


@main.command(hidden=True)
@click.argument("motifs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="NAME")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--install", is_flag=True, help="Make it the profile of the traced program.")
@click.option(
    "--executor",
    type=click.Choice(["fast", "reference"]),
    default="fast",
    help="reference: every shape that the language can say, to prove it right.",
)
def synthesize(
    motifs: tuple[Path, ...], output: Path | None, force: bool, install: bool, executor: str
) -> None:
    """Write NAME.cosy and NAME.img from motif files."""
    from synth.compile import compile_profile, write_whole
    from synth.errors import SynthError
    from synth.language import print_profile
    from synth.synthesize import synthesize as decide
    from synth.synthesize import synthesize_reference
    from tracer.interrupt import promised, uninterrupted
    from tracer.output import OutputError, check

    name = output or Path(motifs[0].name.removesuffix(MOTIFS_SUFFIX).removesuffix(".json"))
    base = name.with_suffix("") if name.suffix in (".cosy", ".img") else name
    text, image = base.with_name(base.name + ".cosy"), base.with_name(base.name + ".img")
    try:
        for path in (text, image):
            check(path, force)
    except OutputError as error:
        raise _Failure(str(error)) from None
    try:
        with promised(text, image):
            files = [_load_motifs(path) for path in motifs]
            profile, decisions = (
                synthesize_reference(files) if executor == "reference" else decide(files)
            )
        _print_decisions(decisions)
        if not profile.compounds:
            raise _Failure(f"{motifs[0]}: no motif is worth a compound: nothing written")
        data = compile_profile(profile, str(text))
        with promised(text, image), uninterrupted():
            write_whole(text, print_profile(profile).encode())
            write_whole(image, data)
        if install:
            _install(profile, motifs)
    except SynthError as error:
        raise _Failure(str(error)) from None
    click.echo(f"\nwritten  {text}, {image}")
    option = "--executor reference " if executor == "reference" else ""
    click.echo(f"next     cosy-auto --stats {option}--profile {image} COMMAND")


def _load_motifs(path: Path) -> MotifFile:
    from miner.motifs import MotifFileError, load

    try:
        return load(path)
    except OSError as error:
        raise _Failure(f"cannot read {path}: {error.strerror}: give a file of cosy-mine") from None
    except MotifFileError as error:
        raise _Failure(f"{path} is no motif file: {error}") from None


def _install(profile: Profile, motifs: tuple[Path, ...]) -> None:
    from synth.errors import SynthError
    from synth.store import save

    ids = {
        build_id
        for path in motifs
        for motif in _load_motifs(path).motifs
        for build_id in motif.build_ids.values()
    }
    if len(ids) != 1:
        raise SynthError(
            f"cannot install: the motifs come from {len(ids)} known programs, not one: "
            "use `cosy-auto --profile` instead"
        )
    click.echo(f"stored   {save(profile, ids.pop())}")


def _print_decisions(decisions: list[Decision]) -> None:
    """Compounds first, then what gave none, one paragraph per reason."""
    import textwrap

    by_reason: dict[tuple[str, str], list[str]] = {}
    for decision in decisions:
        made = f"compound {decision.compound.name}" if decision.compound else "no compound"
        by_reason.setdefault((made, decision.reason), []).extend(decision.motifs)
    for (made, reason), motifs in by_reason.items():
        names = list(dict.fromkeys(motifs))
        names_of = ", ".join(names[:NAMES])
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        of = "" if made == f"compound {names[0]}" and len(names) == 1 else f"{names_of}{more}: "
        line = f"{made}: {of}{reason}"
        click.echo(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def _load_profile(path: Path) -> Profile:
    from synth.compile import load_profile
    from synth.errors import SynthError

    try:
        return load_profile(path)
    except SynthError as error:
        raise _Failure(str(error)) from None


def _profile_path(ctx: click.Context, _param: click.Parameter, value: Path) -> Path:
    """A stored profile by its program or build-id; or a file."""
    from synth.errors import SynthError
    from synth.store import lookup

    if value.suffix in (".cosy", ".img"):
        return value
    try:
        known = lookup(str(value))
        found = [each for each in known if each.image.exists()]
        without = bool(known) and not found
    except SynthError:
        found, without = [], False
    if without and ctx.command.name != "explain" and not value.exists():
        raise _Failure(f"{value} was learnt without any gain: see cosy-synth explain {value}")
    if len(found) > 1:
        ids = ", ".join(each.build_id[:12] for each in found)
        raise _Failure(f"{value} has several profiles: give the build-id: {ids}")
    return found[0].image if found else value


_PROFILE = click.argument(
    "profile", type=click.Path(path_type=Path), callback=_profile_path, metavar="PROFILE"
)


@main.command("list")
def list_profiles() -> None:
    """List the stored profiles: for which program, learnt when and from how many runs."""
    from synth.errors import SynthError
    from synth.store import entries, folder

    try:
        found = entries()
        where = folder()
    except SynthError as error:
        raise _Failure(str(error)) from None
    if not found:
        click.echo(f"no profiles in {where}: `cosy-auto --learn COMMAND` makes some")
        return
    click.echo(f"{'build-id':12}  {'version':>7}  {'runs':>4}  {'learnt':10}  compounds, program")
    for each in found:
        click.echo(_listed(each))


def _listed(each: Entry) -> str:
    import datetime

    from synth.compile import load_profile
    from synth.errors import SynthError

    day = str(datetime.date.fromtimestamp(each.learnt_s)) if each.learnt_s else "-"
    compounds = "none"
    if each.image.exists():
        try:
            compounds = ", ".join(c.name for c in load_profile(each.image).compounds)
        except SynthError:
            compounds = "damaged or of another version"
    program = each.program or "installed by hand"
    return (
        f"{each.build_id[:12]}  {each.version:7}  {each.runs:4}  {day:10}  {compounds}, {program}"
    )


@main.command()
@click.argument("what", nargs=-1, required=True)
def remove(what: tuple[str, ...]) -> None:
    """Forget stored profiles, each named by a program's path or name, or by a build-id."""
    from synth import store
    from synth.errors import SynthError

    for name in what:
        try:
            found = store.lookup(name)
            if not found:
                raise _Failure(f"nothing stored is called {name}: see cosy-synth list")
            for each in found:
                store.remove(each.build_id)
                click.echo(f"removed  {each.build_id[:12]} {each.program}".rstrip())
        except SynthError as error:
            raise _Failure(str(error)) from None


@main.command()
@_PROFILE
def show(profile: Path) -> None:
    """Print a profile, text or image, as canonical text."""
    from synth.language import print_profile

    # An image holds no comments; the text beside it does, if it means the same.
    loaded = _load_profile(profile)
    beside = profile.with_suffix(".cosy")
    if profile.suffix == ".img" and beside.exists():
        loaded = _same_meaning(loaded, beside)
    click.echo(print_profile(loaded), nl=False)


def _same_meaning(profile: Profile, text: Path) -> Profile:
    from synth.compile import load_profile
    from synth.errors import SynthError
    from synth.lowering import lower

    try:
        commented = load_profile(text)
        return commented if lower(commented) == lower(profile) else profile
    except SynthError:
        return profile


@main.command()
@_PROFILE
def verify(profile: Path) -> None:
    """Check a profile, text or image, as the shim will; say every problem."""
    from synth import verify as verifier
    from synth.errors import SynthError
    from synth.lowering import lower
    from synth.store import refusal

    loaded = _load_profile(profile)
    try:
        problems = verifier.problems(lower(loaded))
    except SynthError as error:
        problems = [str(error)]
    not_trusted = refusal(profile)
    if not_trusted and profile.suffix == ".img":
        problems.append(f"the shim would refuse it: {not_trusted}")
    for problem in problems:
        click.echo(f"cosy-synth: {profile}: {problem}", err=True)
    if problems:
        raise SystemExit(1)
    names = ", ".join(compound.name for compound in loaded.compounds) or "no compounds"
    click.echo(f"{profile}: good: {names}")


@main.command()
@_PROFILE
def explain(profile: Path) -> None:
    """Say in words what each compound of a profile does, and when; or of each motif what becomes
    of it, and why: of a motif file (NAME.json), or of a program that was learnt without any gain.
    """
    import textwrap

    from synth.errors import SynthError
    from synth.explain import paragraphs

    try:
        files = _motifs_behind(profile)
        if files:
            _explain_motifs(files)
            return
        for paragraph in paragraphs(_load_profile(profile)):
            click.echo(
                textwrap.fill(paragraph, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
            )
    except SynthError as error:
        raise _Failure(f"{profile}: {error}") from None


def _motifs_behind(what: Path) -> list[MotifFile]:
    """Motifs that are asked about: of a file, or of a program that has no profile."""
    from synth import store
    from synth.errors import SynthError

    if what.suffix == ".json":
        return [_load_motifs(what)]
    if what.exists() or what.suffix in (".cosy", ".img"):
        return []
    try:
        return [run for each in store.lookup(str(what)) for run in store.runs(each.build_id)]
    except SynthError:
        return []


def _explain_motifs(files: list[MotifFile]) -> None:
    from synth.synthesize import synthesize as decide
    from synth.synthesize import synthesize_reference

    fast, shapes = decide(files)[1], synthesize_reference(files)[1]
    click.echo("For the executors that gain:")
    _print_decisions(fast)
    click.echo("\nFor the reference executor (--executor reference):")
    _print_decisions(shapes)


if __name__ == "__main__":
    main()
