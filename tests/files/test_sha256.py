import pytest

from steelseg.errors import DataError
from steelseg.files.sha256 import sha256_file


def test_the_digest_is_that_of_the_standard(tmp_path):
    """FIPS 180-2 gives the SHA-256 of "abc" as an example."""
    (tmp_path / "a").write_bytes(b"abc")

    assert sha256_file(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """The reason is the system's."""
    with pytest.raises(DataError, match=r"none cannot be read: No such file or directory\."):
        sha256_file(tmp_path / "none")
