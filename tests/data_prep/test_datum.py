"""Our Datum bytes against the message class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xresnet.caffeproto import Datum
from xresnet.caffeproto.datum import encoded_datum, image_datum, label_datum, parse_datum

_pixels = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.RandomState(t[2]).randint(0, 256, (t[0], t[1], 3)).astype(np.uint8)
)


@given(_pixels, st.integers(0, 2**31 - 1))
def test_image_record(pixels, label):
    record = image_datum(pixels, label)[0].tobytes()
    height, width, _ = pixels.shape
    planar = pixels.transpose(2, 0, 1).tobytes()
    message = Datum(channels=3, height=height, width=width, data=planar, label=label, encoded=False)
    assert record == message.SerializeToString()
    read = parse_datum(record)
    assert (read.channels, read.height, read.width) == (3, height, width)
    assert (read.data, read.label, read.encoded, read.float_data) == (planar, label, False, ())


@given(st.binary(max_size=300), st.integers(0, 2**31 - 1))
def test_encoded_record(jpeg, label):
    message = Datum(data=jpeg, label=label, encoded=True)
    assert encoded_datum(jpeg, label) == message.SerializeToString()


@given(st.lists(st.integers(0, 2**24), min_size=1, max_size=8))
def test_label_record(labels):
    record = label_datum(labels)
    message = Datum(channels=len(labels), height=1, width=1, float_data=labels)
    assert record == message.SerializeToString()
    assert parse_datum(record).float_data == tuple(labels)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(record):
    try:
        parse_datum(record)
    except ValueError:
        return


@given(_pixels, st.data())
def test_a_record_cut_short_is_noticed(pixels, data):
    record = image_datum(pixels, 300)[0].tobytes()
    end = data.draw(st.integers(1, len(record) - 1))
    try:
        read = parse_datum(record[:end])
    except ValueError:
        return
    # A cut between two fields leaves a smaller but valid message, never wrong values.
    assert read.data in (b"", pixels.transpose(2, 0, 1).tobytes())
    assert read.label in (0, 300)


def test_packed_floats_are_read_too():
    assert parse_datum(b"\x32\x08" + np.array([1, 2], "<f4").tobytes()).float_data == (1.0, 2.0)


def test_a_field_of_another_message_is_refused():
    with pytest.raises(ValueError, match="field 3"):
        parse_datum(b"\x1a\x01x")


def test_fields_that_caffe_does_not_know_are_passed_over():
    assert parse_datum(b"\x48\x01\x28\x05").label == 5


def test_a_label_below_zero_is_read():
    assert parse_datum(Datum(label=-1).SerializeToString()).label == -1


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Datum(encoded=True), "cannot be decoded"),
        (Datum(encoded=True, data=b"\xff\xd8\xff"), "cannot be decoded"),
        (Datum(channels=3, height=2, width=2, data=b"x" * 11), "11 bytes of pixels do not fill"),
        (Datum(channels=3, height=1, width=1, float_data=[1]), "1 numbers do not fill"),
    ],
)
def test_what_fills_no_shape_is_told(message, told):
    with pytest.raises(ValueError, match=told):
        parse_datum(message.SerializeToString()).array()
