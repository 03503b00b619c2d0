from __future__ import annotations

import pytest

from search.sizes import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4 GB", 4 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5 gb", 1_500_000_000),
        (2000000, 2 * 10**6),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", [4, "4", "4 GBB", "", "-1 GB", "GB", True, "900 kB", None])
def test_what_is_no_size_or_lacks_its_unit_is_refused(text):
    with pytest.raises(ValueError, match=r"a size must be like '4 GB', .* at least 1 MB, got"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"), [(4.2e9, "4.2 GB"), (999, "999 B"), (1500, "1.5 kB"), (2**20, "1.05 MB")]
)
def test_sizes_are_shown_with_three_digits(size, text):
    assert format_bytes(size) == text
