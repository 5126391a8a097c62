"""Atari games by name."""

from pathlib import Path

from blip.errors import BlipError

SUFFIX = "NoFrameskip-v4"
"""What the paper's environments are called: no sticky actions, and the frame skip (4) is the wrappers' alone."""

UNPLAYABLE = {"combat", "joust", "maze_craze", "warlords"}
"""ROMs that ale-py lists and that its emulator, on being given one, ends the process with."""


def game_name(name: str) -> str:
    """The plain name, such as KungFuMaster, of a game given by it or as `KungFuMasterNoFrameskip-v4`.

    Raises BlipError where ale-py is not installed or has no such game, and for other versions of an environment
    (`ALE/KungFuMaster-v5`, `KungFuMaster-v0`), which have sticky actions or a frame skip of their own.
    """
    plain = name.removesuffix(SUFFIX)
    if "/" in plain or "-" in plain:
        meant = plain.removeprefix("ALE/").partition("-")[0].removesuffix("Deterministic").removesuffix("NoFrameskip")
        raise BlipError(
            f"game {name}: has sticky actions or a frame skip of its own, which the paper's games have not: "
            f"write {meant} or {meant}{SUFFIX}"
        )
    if plain not in _rom_ids():
        near = [known for known in _rom_ids() if known.lower() == plain.replace("_", "").lower()]
        hint = f"write {near[0]}" if near else "expected a name such as KungFuMaster or KungFuMasterNoFrameskip-v4"
        raise BlipError(f"game {name}: ale-py has no such game: {hint}")
    return plain


def rom_id(game: str) -> str:
    """ale-py's name of a game's ROM, such as kung_fu_master. Raises BlipError where the file is missing or damaged."""
    from ale_py import roms

    rom = _rom_ids()[game_name(game)]
    try:
        path: Path | None = roms.get_rom_path(rom)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise BlipError(f"game {game}: the ROM {rom}.bin cannot be read: {reason}") from None
    if path is None:
        raise BlipError(f"game {game}: ale-py has no ROM {rom}.bin")
    return rom


def _rom_ids() -> dict[str, str]:
    """ROM by plain name of the game."""
    try:
        from ale_py import roms
    except ImportError:
        raise BlipError("Atari games need further packages: pip install 'blip-continual[rl]'") from None
    return {rom.title().replace("_", ""): rom for rom in roms.get_all_rom_ids() if rom not in UNPLAYABLE}
