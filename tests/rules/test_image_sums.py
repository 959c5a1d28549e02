"""Lists of checksums as publishers write them."""

import pytest

from borough.fleet.images import RECIPES, Checksum, Download, checksum_given, checksum_in

SHA256, SHA512 = "ab" * 32, "cd" * 64
OTHER = "ef" * 32


@pytest.mark.parametrize(
    "text",
    [
        f"{OTHER}  other.img\n{SHA256}  disk.img\n",
        f"{SHA256} *disk.img\n",
        f"SHA256 (disk.img) = {SHA256}\n",
        f"{SHA256}\n",
        f"{SHA256.upper()}  ./somewhere/disk.img\n",
        f"disk.img\t{SHA256}\t1234\tdescription of the distribution\n",
    ],
)
def test_a_files_checksum_is_found(text: str) -> None:
    assert checksum_in(text, "disk.img") == Checksum("sha256", SHA256)


def test_the_length_tells_the_algorithm() -> None:
    assert checksum_in(f"{SHA512}  disk.img", "disk.img") == Checksum("sha512", SHA512)


@pytest.mark.parametrize("text", ["", "not a list", f"{OTHER}  disk.img.sig\n", "zz" * 32 + "  disk.img"])
def test_what_is_not_named_has_none(text: str) -> None:
    assert checksum_in(text, "disk.img") is None


def test_what_a_recipe_knows_itself_counts_first() -> None:
    assert checksum_given(Download(url="https://x/y", sha256=SHA256)) == Checksum("sha256", SHA256)
    assert checksum_given(Download(url="https://x/y", sha512=SHA512)) == Checksum("sha512", SHA512)
    assert checksum_given(Download(url="https://x/y", sums_url="https://x/z")) is None


def test_every_recipe_is_fetched_safely_or_made_here() -> None:
    assert len([recipe for recipe in RECIPES.values() if not recipe.local]) == 12
    for recipe in RECIPES.values():
        assert bool(recipe.tag) + bool(recipe.downloads) + recipe.local == 1
        for download in recipe.downloads.values():
            assert download.url.startswith("https://")
