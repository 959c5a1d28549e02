"""Stands in for a FreeBSD host: notes every command, and knows of machines and jails what the real tools would say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from borough.adapters.process import Finished


@dataclass
class FreeBsd:
    """A host whose tools are this object. Processes and jails come and go as commands say."""

    processes: dict[int, str] = field(default_factory=dict)
    kernel: set[str] = field(default_factory=set)
    jails: dict[str, list[str]] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    ran: list[list[str]] = field(default_factory=list)
    stubborn: bool = False
    """What runs does not end when it is asked to."""
    racct: bool = True
    dead_on_arrival: bool = False

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"") -> Finished:
        """Act as the command would."""
        del stdin
        words = list(argv)
        self.ran.append(words)
        code, said = self._act(words)
        return Finished(
            argv=tuple(words), code=code, stdout=said.encode(), stderr=b"" if code == 0 else b"no such thing"
        )

    def named(self, program: str) -> list[list[str]]:
        return [words for words in self.ran if words[0] == program]

    def _act(self, words: list[str]) -> tuple[int, str]:
        act = getattr(self, f"_{words[0]}", None)
        assert act is not None, f"nobody knows {words}"
        told: tuple[int, str] = act(words)
        return told

    def _uname(self, _: list[str]) -> tuple[int, str]:
        return 0, "FreeBSD 14.3-RELEASE\n"

    def _kldstat(self, _: list[str]) -> tuple[int, str]:
        return 0, ""

    def _which(self, words: list[str]) -> tuple[int, str]:
        return 0, "\n".join(f"/usr/sbin/{word}" for word in words[1:])

    def _sysctl(self, _: list[str]) -> tuple[int, str]:
        return 0, "1\n" if self.racct else "0\n"

    def _ps(self, words: list[str]) -> tuple[int, str]:
        if "-p" in words or "-J" in words:
            return 0, "1-02:03:04.50 2048\n"
        header = "  1 0 Thu Nov 19 23:27:00 2026 /sbin/init\n 77 0 Thu Nov 19 23:27:00 2026 sh -c bhyve: x\n"
        return 0, header + "".join(
            f"{pid} 0 Fri Nov 20 10:00:{pid % 60:02} 2026 {command}\n" for pid, command in self.processes.items()
        )

    def _ls(self, words: list[str]) -> tuple[int, str]:
        if words[1] == "/dev/vmm":
            return 0, "\n".join(sorted(self.kernel))
        return (0 if Path(words[1]).name in self.kernel else 1), ""

    def _bhyveload(self, words: list[str]) -> tuple[int, str]:
        self.kernel.add(words[-1])
        return 0, ""

    def _daemon(self, words: list[str]) -> tuple[int, str]:
        name = words[-1]
        self.kernel.add(name)
        Path(words[words.index("-o") + 1]).write_text(f"the console of {name}\n")
        if not self.dead_on_arrival:
            self.processes[1000 + len(self.ran)] = f"bhyve: {name} (bhyve)"
        return 0, ""

    def _kill(self, words: list[str]) -> tuple[int, str]:
        if not (self.stubborn and words[1] == "-TERM"):
            self.processes.pop(int(words[2]))
        return 0, ""

    def _bhyvectl(self, words: list[str]) -> tuple[int, str]:
        name = words[-1].removeprefix("--vm=")
        if name not in self.kernel:
            return 1, ""
        self.kernel.discard(name)
        return 0, ""

    def _jail(self, words: list[str]) -> tuple[int, str]:
        if words[1] == "-c":
            name = words[2].removeprefix("name=")
            assert name not in self.jails
            self.jails[name] = words
            return 0, ""
        if words[2] not in self.jails:
            return 1, ""
        if not (self.stubborn and words[1] == "-r"):
            del self.jails[words[2]]
        return 0, ""

    def _jls(self, words: list[str]) -> tuple[int, str]:
        if words[1] == "name":
            return 0, "\n".join(["somebodys", *self.jails])
        return (0, "7\n") if words[2] in self.jails else (1, "")

    def _rctl(self, words: list[str]) -> tuple[int, str]:
        if words[1] == "-a":
            self.limits.append(words[2])
        else:
            self.limits = [limit for limit in self.limits if not limit.startswith(words[2])]
        return 0, ""
