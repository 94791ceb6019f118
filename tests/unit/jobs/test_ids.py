import pytest

from jobs.ids import is_id, new_id


def test_ids_sort_in_the_order_in_which_they_were_made():
    ids = [new_id("job") for _ in range(1000)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("prefix", ["job", "enc", "evt", "key"])
def test_an_id_is_one_of_its_own_kind_only(prefix):
    made = new_id(prefix)
    assert [p for p in ("job", "enc", "evt", "key") if is_id(made, p)] == [prefix]


@pytest.mark.parametrize(
    "text", ["", "job_", "job_../../etc/passwd", "job_" + "0" * 33, "job_" + "0" * 32 + "\n"]
)
def test_other_text_is_no_id(text):
    assert not is_id(text, "job")
