"""The image ``host``: what of a host its machines are shown, and what never."""

import pytest

from borough.fleet.host_image import HostFacts, HostView, Wish, is_setting, view_of

PRIVATE = frozenset({"/", "/root", "/home", "/home/ada", "/var/lib/borough"})


def seen(*wishes: Wish, folders: frozenset[str] = frozenset({"usr"})) -> HostView:
    return view_of(HostFacts(links={"bin": "usr/bin"}, folders=folders, wishes=wishes, private=PRIVATE))


def wish(path: str, *, source: str | None = None, readable: bool = True) -> Wish:
    return Wish(path=path, source=source or path, readable=readable)


def test_programs_are_shown_where_they_are_and_links_stay_links() -> None:
    view = seen()
    assert (view.shown, view.links, view.left_out) == ({"/usr": "/usr"}, {"bin": "usr/bin"}, {})
    assert seen(folders=frozenset({"usr", "lib", "bin"})).shown == {"/usr": "/usr", "/bin": "/bin", "/lib": "/lib"}


def test_a_python_of_one_s_own_is_shown_under_its_name_and_nothing_beside_it() -> None:
    view = seen(wish("/home/ada/work/.venv"), wish("/opt/python", source="/srv/python-3.12"), wish("/usr/lib/python3"))
    assert view.shown == {
        "/usr": "/usr", "/home/ada/work/.venv": "/home/ada/work/.venv", "/opt/python": "/srv/python-3.12"
    }  # fmt: skip


def test_what_lies_in_a_folder_that_is_shown_is_not_shown_again() -> None:
    assert list(seen(wish("/opt/py/lib"), wish("/opt/py")).shown) == ["/usr", "/opt/py"]


@pytest.mark.parametrize("path", ["/", "/home", "/home/ada", "/root", "/var/lib", "/var/lib/borough"])
def test_no_home_and_none_of_our_own_state_is_ever_shown(path: str) -> None:
    view = seen(wish(path), wish("/opt/link", source=path))
    assert set(view.shown) == {"/usr"}
    assert set(view.left_out) == {path, "/opt/link"}
    assert all(why.startswith("it holds /") for why in view.left_out.values())


def test_what_other_users_may_not_read_is_left_out_and_told() -> None:
    assert seen(wish("/opt/closed", readable=False)).left_out == {"/opt/closed": "other users may not read it"}


@pytest.mark.parametrize(
    "path", ["ssl/certs/ca-certificates.crt", "alternatives/java", "ld.so.conf.d/x.conf", "java-17/net.properties"]
)  # fmt: skip
def test_settings_that_programs_need_are_copied(path: str) -> None:
    assert is_setting(path)


@pytest.mark.parametrize(
    "path", ["shadow", "passwd", "ssh/ssh_host_ed25519_key", "ssl/private/key.pem", "sudoers", "pip.conf", "npmrc",
             "gitconfig", "environment", "profile.d/token.sh", "hosts", "machine-id", "krb5.keytab", "../root/.ssh"]
)  # fmt: skip
def test_what_may_hold_a_secret_is_not(path: str) -> None:
    assert not is_setting(path)
