"""A ``zfs`` that keeps its volumes as files: it answers the arguments that are used, in the words of the real one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from borough.adapters.process import Finished


class ScriptedZfs:
    """Datasets by name, each with properties; a volume's device is a file below ``nodes``."""

    def __init__(self, nodes: Path, datasets: Sequence[str]) -> None:
        self.nodes = nodes
        self.volumes: dict[str, dict[str, str]] = {}
        self.snapshots: set[str] = set()
        self.datasets = set(datasets)
        self.asked: list[Sequence[str]] = []
        for dataset in datasets:
            (nodes / dataset).mkdir(parents=True)

    def add(self, volume: str, content: bytes) -> None:
        self.volumes[volume] = {"volsize": str(len(content))}
        (self.nodes / volume).write_bytes(content)

    def run(self, argv: Sequence[str]) -> Finished:
        self.asked.append(argv)
        assert argv[0] == "zfs"
        try:
            said = getattr(self, f"_{argv[1]}")(list(argv[2:]))
        except KeyError as missing:
            return Finished(
                argv=tuple(argv), code=1, stdout=b"", stderr=f"cannot open {missing}: dataset does not exist".encode()
            )
        except FileExistsError as there:
            return Finished(
                argv=tuple(argv), code=1, stdout=b"", stderr=f"cannot create '{there}': dataset already exists".encode()
            )
        return Finished(argv=tuple(argv), code=0, stdout=said.encode(), stderr=b"")

    def _list(self, words: list[str]) -> str:
        dataset, columns = words[-1], words[words.index("-o") + 1].split(",")
        if dataset not in self.datasets:
            raise KeyError(dataset)
        known = {"written": "0", "creation": "1700000000"}
        rows = [
            [name if column == "name" else {**known, **about}.get(column, "-") for column in columns]
            for name, about in self.volumes.items()
            if name.rpartition("/")[0] == dataset
        ]
        return "".join("\t".join(row) + "\n" for row in rows)

    def _snapshot(self, words: list[str]) -> str:
        if words[0] in self.snapshots:
            raise FileExistsError(words[0])
        self.volumes[words[0].partition("@")[0]]
        self.snapshots.add(words[0])
        return ""

    def _clone(self, words: list[str]) -> str:
        _, setting, snapshot, disk = words
        assert snapshot in self.snapshots
        source = snapshot.partition("@")[0]
        name, _, value = setting.partition("=")
        self.volumes[disk] = {"volsize": self.volumes[source]["volsize"], name: value}
        shutil.copyfile(self.nodes / source, self.nodes / disk)
        return ""

    def _set(self, words: list[str]) -> str:
        name, _, value = words[0].partition("=")
        self.volumes[words[1]][name] = value
        if name == "volsize":
            with (self.nodes / words[1]).open("r+b") as device:
                device.truncate(int(value))
        return ""

    def _create(self, words: list[str]) -> str:
        size, volume = words[words.index("-V") + 1], words[-1]
        if volume in self.volumes:
            raise FileExistsError(volume)
        self.add(volume, b"\0" * int(size))
        return ""

    def _destroy(self, words: list[str]) -> str:
        del self.volumes[words[-1]]
        (self.nodes / words[-1]).unlink()
        return ""

    def _rename(self, words: list[str]) -> str:
        self.volumes[words[1]] = self.volumes.pop(words[0])
        (self.nodes / words[0]).rename(self.nodes / words[1])
        return ""
