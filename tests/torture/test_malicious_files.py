import pickle

from steelseg.errors import DataError
from torture.malicious_files import Payload, is_refused


def runs_its_payload(_root, mark):
    pickle.loads(pickle.dumps(Payload(mark)))
    raise DataError("too late")


def tells_the_secret(root, _mark):
    raise DataError((root.parent / "secret").read_text())


def goes_through(_root, _mark):
    pass


def test_an_attempt_that_succeeds_is_told_from_one_that_fails():
    """Else the row could not fail."""
    assert not is_refused(runs_its_payload)
    assert not is_refused(tells_the_secret)
    assert not is_refused(goes_through)
