"""The fuzzers' inputs, replayed under AddressSanitizer and UndefinedBehaviorSanitizer with a plain gcc."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "native" / "fuzz"
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
GOLDEN = ROOT / "tests" / "unit" / "golden"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiled(harness: str, directory: Path) -> Path:
    program = directory / harness
    sources = [str(FUZZ / f"{harness}.c"), str(FUZZ / "replay_main.c")]
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", *SANITIZE]
    subprocess.run(["gcc", *flags, *sources, "-o", str(program)], check=True, timeout=100)
    return program


def replay(program: Path, *inputs: Path) -> None:
    expected = sum(len(list(path.iterdir())) if path.is_dir() else 1 for path in inputs)
    ran = subprocess.run([str(program), *map(str, inputs)], capture_output=True, text=True, timeout=100, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{expected} inputs\n"), ran.stderr


def test_the_dump_parser_reads_the_corpus(tmp_path: Path) -> None:
    """The dump parser reads the corpus, and the kernel's recordings by buffer and whole, without a finding."""
    recordings = [path for path in sorted(GOLDEN.iterdir()) if path.is_dir()]
    assert recordings
    for path in recordings:
        whole = b"".join(buffer.read_bytes() for buffer in sorted(path.glob("*.bin")))
        (tmp_path / f"{path.name}.whole").write_bytes(whole)
    program = compiled("fuzz_dump", tmp_path)
    replay(program, CORPUS / "dump", *recordings, *tmp_path.glob("*.whole"))


def test_the_dump_parser_reads_truncated_recordings(tmp_path: Path) -> None:
    """A recording of the kernel's, cut short at every byte, is read without a finding."""
    whole = (GOLDEN / "distinct" / "00.bin").read_bytes()
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for cut in range(len(whole)):
        (pieces / f"{cut}").write_bytes(whole[:cut])
    replay(compiled("fuzz_dump", tmp_path), pieces)


def test_the_comparison_agrees_with_a_plain_one(tmp_path: Path) -> None:
    """Two dumps differ by what two nested loops find, over the corpus, without a finding."""
    replay(compiled("fuzz_compare", tmp_path), CORPUS / "compare")


def test_the_pool_agrees_with_a_plain_model(tmp_path: Path) -> None:
    """The address pool does what the harness's plain model does, over the corpus, without a finding."""
    replay(compiled("fuzz_pool", tmp_path), CORPUS / "pool")


def test_rows_are_found_and_ordered_as_by_a_plain_model(tmp_path: Path) -> None:
    """Index and heaps of rows do what the harness's plain model does, over the corpus, without a finding."""
    replay(compiled("fuzz_rows", tmp_path), CORPUS / "rows")


def test_the_answer_parser_reads_the_corpus(tmp_path: Path) -> None:
    """Answers of wireguard-go's, whole, in pieces and with tables that must grow, are read alike and without a finding.

    One of them is cut short at every byte, too.
    """
    whole = (CORPUS / "uapi" / "whole").read_bytes()
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for cut in range(len(whole)):
        (pieces / f"{cut}").write_bytes(whole[:cut])
    replay(compiled("fuzz_uapi", tmp_path), CORPUS / "uapi", pieces)


def test_a_finding_is_seen(tmp_path: Path) -> None:
    """The replay fails when the harness reads one byte past its input: the sanitizer is really there."""
    broken = tmp_path / "broken.c"
    broken.write_text(
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdlib.h>\n"
        "int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);\n"
        "int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)\n"
        "{ uint8_t *copy = malloc(size); copy[0] = data[0]; volatile uint8_t past = copy[size]; free(copy);"
        " return past & 0; }\n"
    )
    program = tmp_path / "broken"
    flags = ["-std=c11", "-g", *SANITIZE]
    subprocess.run(
        ["gcc", *flags, str(broken), str(FUZZ / "replay_main.c"), "-o", str(program)], check=True, timeout=100
    )
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        replay(program, CORPUS / "pool" / "errors")
