"""What is in a worker's box, and in which order: values in, bubblewrap's arguments out."""

from borough.adapters.engines.bubblewrap.argv import System
from borough.adapters.engines.bubblewrap_workers.layout import Place, WorkerView, arguments, pinned, settled

SYSTEM = System(links=[("/bin", "usr/bin")], folders=["/lib"], etc=[])


def view(*places: Place, **more: object) -> WorkerView:
    told = {
        "uid": 7, "gid": 8, "system": SYSTEM, "folders": ["/usr", "/etc"], "home": "/home/u", "own_home": "/own/home",
        "own_tmp": "/own/tmp", "places": places, "state": "/p/.tt", "cwd": "/p", **more,
    }  # fmt: skip
    return WorkerView(**told)  # type: ignore[arg-type]  # a test names only what it is about


def mounts(words: list[str]) -> list[tuple[str, str]]:
    """Return what is mounted where, in order: how, and the path in the box."""
    found = []
    for place, word in enumerate(words):
        if word in ("--bind", "--ro-bind", "--dev-bind"):
            found.append((word, words[place + 2]))
        elif word == "--tmpfs":
            found.append((word, words[place + 1]))
    return found


def test_outer_places_come_first_and_what_others_show_anyway_is_left_out() -> None:
    places = [Place("/a/b/c"), Place("/a", writable=True), Place("/a/d", writable=True), Place("/e/f"), Place("/e")]
    assert settled(places) == [Place("/a", writable=True), Place("/e"), Place("/a/b/c")]
    assert settled([Place("/a"), Place("/a", writable=True)]) == [Place("/a", writable=True)]


def test_what_lies_above_a_secret_cannot_be_renamed() -> None:
    assert pinned("/p/a/b/key", [Place("/p", writable=True)]) == ["/p/a", "/p/a/b"]
    assert pinned("/p/.tt", [Place("/p", writable=True)]) == []
    assert pinned("/p/a/key", [Place("/p")]) == []
    assert pinned("/q/a/key", [Place("/p", writable=True)]) == []


def test_the_state_is_hidden_last_and_only_what_is_kept_of_it_comes_after() -> None:
    kept = [Place("/p/.tt/agents/a/1/work", writable=True), Place("/p/.tt/agents/a/1/token")]
    words = arguments(view(Place("/p", writable=True), kept=kept, fixed=["/p/town.toml"], hidden=[("/p/a/key", False)]))
    order = mounts(words)
    assert order[-5:] == [
        ("--ro-bind", "/p/town.toml"),
        ("--ro-bind", "/p/a/key"),
        ("--tmpfs", "/p/.tt"),
        ("--bind", "/p/.tt/agents/a/1/work"),
        ("--ro-bind", "/p/.tt/agents/a/1/token"),
    ]
    assert words[words.index("/p/a/key") - 1] == "/dev/null"
    assert ("--bind", "/p/a") in order, "or the folder could be renamed"
    assert words[-8:] == ["--remount-ro", "/p/.tt", "--remount-ro", "/run", "--remount-ro", "/", "--chdir", "/p"]
    assert words.index("/p/.tt/agents/a/1/token") < words.index("--remount-ro")


def test_the_home_is_the_workers_own_unless_it_is_the_project_itself() -> None:
    words = arguments(view(Place("/home/u/p", writable=True), Place("/home/u/.claude", writable=True)))
    assert words[words.index("/home/u") - 1] == "/own/home"
    order = [path for _, path in mounts(words)]
    assert order.index("/home/u") < order.index("/home/u/.claude") < order.index("/p/.tt")
    same = arguments(view(Place("/home/u", writable=True), cwd="/home/u"))
    assert "/own/home" not in same
    above = [path for _, path in mounts(arguments(view(Place("/home", writable=True))))]
    assert above.index("/home") < above.index("/home/u")


def test_devices_are_devices_and_secrets_that_nobody_sees_are_not_covered() -> None:
    words = arguments(view(Place("/p", writable=True), Place("/dev/kvm", writable=True), hidden=[("/srv/key", False)]))
    assert ("--dev-bind", "/dev/kvm") in mounts(words)
    assert "/srv/key" not in words
