"""Programs of the host: what they are given, what they print, and how they fail."""

from __future__ import annotations

import os

import pytest

from appliance.domain.errors import HostError
from appliance.network import programs
from appliance.network.firewall import nft
from appliance.network.programs import ProgramFailed, ProgramMissing


def test_output() -> None:
    """The input reaches the program, and what it prints comes back, also where it is no UTF-8."""
    assert programs.run("cat", text="a ruleset\n") == "a ruleset\n"
    assert programs.run("cat") == ""
    assert programs.run("printf", r"\377") == "\ufffd"


def test_environment() -> None:
    """The program has the environment that it is given, and nothing else of this process's."""
    assert programs.run("env", environ={"PATH": "/usr/bin", "LC_ALL": "C"}).split() == [
        "PATH=/usr/bin:/usr/sbin",
        "LC_ALL=C",
    ]


@pytest.mark.parametrize(
    ("path", "searched"),
    [
        ("/usr/local/bin:/usr/bin:/bin", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"),
        ("/usr/sbin:/usr/bin", "/usr/sbin:/usr/bin"),
        ("/opt/tools", "/opt/tools"),
    ],
)
def test_search_path(path: str, searched: str) -> None:
    """A user's PATH without the folders for root is enough to find nft."""
    assert programs.search_path({"PATH": path}) == searched


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo last >&2; echo printed; exit 3", "failed: last"),
        ("echo printed; exit 3", "failed: printed"),
        ("exit 3", "failed: exit status 3"),
        ("kill -9 $$", "failed: exit status -9"),
        (
            "echo Traceback; echo 'KeyError: 1'; echo \"[PYI-7:ERROR] Failed to execute script 'x'\"; exit 1",
            "failed: KeyError: 1",
        ),
        ("echo '[7] Failed to execute script x' >&2; exit 1", "failed: [7] Failed to execute script x"),
    ],
)
def test_failure(script: str, said: str) -> None:
    """The error names the command, and the last line that the program said, or its status; of a packed program that
    ended by an exception, the exception."""
    with pytest.raises(HostError) as caught:
        programs.run("sh", "-c", script)
    assert str(caught.value) == f"sh -c {script} {said}"


def test_a_failure_has_all_that_was_said() -> None:
    """What a failed program printed is there whole: stdout, then stderr."""
    with pytest.raises(ProgramFailed) as caught:
        programs.run("sh", "-c", "echo one; echo two >&2; echo three; exit 1")
    assert caught.value.said.splitlines() == ["one", "three", "two"]


def test_merged_output_is_read_in_order() -> None:
    """With stderr as a part of stdout, a complaint on either is found, in the order in which they were printed."""
    script = "echo '[#] ip link add' >&2; echo 'no device'; exit 1"
    with pytest.raises(ProgramFailed) as caught:
        programs.run("sh", "-c", script, merged=True, summary=programs.joined_lines)
    assert caught.value.reason == "failed: [#] ip link add no device"
    assert programs.run("sh", "-c", "echo a >&2; echo b", merged=True) == "a\nb\n"


def test_too_much_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be cut off is not taken for the whole."""
    monkeypatch.setattr(programs, "LARGEST_OUTPUT", 1 << 20)
    assert len(programs.run("head", "-c", str(1 << 20), "/dev/zero")) == 1 << 20
    with pytest.raises(ProgramFailed, match="printed more than 1 MiB"):
        programs.run("head", "-c", str((1 << 20) + 1), "/dev/zero")


def test_a_sandbox_without_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's unit denies them: others serve."""

    def denied(_name: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", denied)
    assert programs.run("cat", text="a ruleset\n") == "a ruleset\n"


def test_long_complaint() -> None:
    """The error stays readable, however much the program says."""
    with pytest.raises(ProgramFailed) as caught:
        programs.run("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1")
    assert len(caught.value.reason) < programs.LONGEST_SUMMARY + 20


def test_missing_program() -> None:
    """It is told apart from a program that fails."""
    with pytest.raises(ProgramMissing, match=r"^no-such-program is not installed$"):
        programs.run("no-such-program")
    with pytest.raises(ProgramFailed, match="cannot be run: Permission denied"):
        programs.run("/etc/passwd")


def test_program_that_does_not_end() -> None:
    """It is killed in time."""
    with pytest.raises(ProgramFailed, match=r"^sleep 600 did not end within 0\.1 s$"):
        programs.run("sleep", "600", timeout_s=0.1)  # longer than a test may take


def test_process_that_stays_behind() -> None:
    """A program that has ended is not waited for because a process of its own keeps its output open."""
    pid = int(programs.run("sh", "-c", "sleep 600 & echo $!"))  # longer than a test may take
    os.kill(pid, 9)


def test_session() -> None:
    """A program that must not be interrupted is out of reach of the terminal's signals."""
    assert int(programs.run("ps", "-o", "sid=", "-p", str(os.getpid()))) == os.getsid(0)
    leader, session = programs.run("sh", "-c", "echo $$; exec ps -o sid= -p $$", new_session=True).split()
    assert leader == session


def test_nft_complains_first() -> None:
    """nft prints the line at fault behind its message."""
    assert nft.complaint("Error: syntax error\ndelete tabel\n       ^^^^^\n") == "Error: syntax error"
    assert nft.complaint("") == ""
