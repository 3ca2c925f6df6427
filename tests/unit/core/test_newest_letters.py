"""The newest letter of each delivery, in two flat arrays."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.newest_letters import PAYLOAD_BITS, NewestLetters

puts = st.lists(
    st.tuples(
        st.integers(0, 20) | st.integers(0, 2**64 - 1),
        st.integers(-5, 5) | st.integers(0, 2**42 - 1),
        st.integers(0, 2**PAYLOAD_BITS - 1),
    ),
    max_size=60,
)


@given(puts)
def test_it_remembers_what_a_dictionary_would(letters):
    """For any letters in any order: the later one stands, the older of two is returned; 0 is an identity as well."""
    newest, known = NewestLetters(), {}
    for identity, at_ms, payload in letters:
        key, value = identity or 1, (max(at_ms, 0), payload)
        older = newest.put(identity, at_ms, payload)
        if key not in known:
            assert older is None
            known[key] = value
        elif known[key][0] > value[0]:
            assert older == value
        else:
            assert older == known[key]
            known[key] = value
    assert len(newest) == len(known)
    assert all(newest.get(identity) == known[identity or 1] for identity, _, _ in letters)
    assert newest.get(2**64 - 2) == known.get(2**64 - 2)


def test_of_one_millisecond_the_later_put_stands():
    """The bits beside the time don't decide which letter is the newer one."""
    newest = NewestLetters()
    assert newest.put(9, 5, 2) is None
    assert newest.put(9, 5, 1) == (5, 2)
    assert newest.get(9) == (5, 1)


def test_it_grows_and_keeps_all():
    """Tens of thousands of deliveries are all remembered, in at most 43 bytes each."""
    newest, count = NewestLetters(), 40_000
    identities = [number * 0x9E3779B97F4A7C15 & 2**64 - 1 for number in range(1, count + 1)]
    for at_ms, identity in enumerate(identities):
        assert newest.put(identity, at_ms, at_ms & 0xFFFF) is None
    assert [newest.get(identity) for identity in identities] == [(n, n & 0xFFFF) for n in range(count)]
    assert (len(newest._keys) + len(newest._values)) * 8 / count < 43
