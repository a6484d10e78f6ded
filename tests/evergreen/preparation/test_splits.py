from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.errors import WrongUse
from evergreen.kinds.base.split import NONE, REASONS, TEST, TRAIN, VAL, Assignment
from evergreen.preparation.splits import (
    DESCRIPTOR_LENGTH,
    SIMILAR,
    DescriptorFile,
    Items,
    Space,
    allocate,
    assign,
    descriptors_of,
    groups_of,
    look_alikes,
)
from evergreen.scenario.settings import Group

SHARES: dict[str, Any] = {"val_share": 0.1, "test_share": 0.2, "seed": 7}


def cut(items: Items, batches: int) -> Items:
    """The same data set when only its first batches had arrived."""
    end = items.ends[batches - 1]
    descriptors = None if items.descriptors is None else items.descriptors[:end]
    return Items(items.keys[:end], items.labels[:end], items.groups[:end], items.given[:end], descriptors, items.ends[:batches])


def plain(labels: list[int], **changes: Any) -> Items:
    """Items of one batch that have nothing to do with each other."""
    count = len(labels)
    items = Items(
        keys=np.random.default_rng(1).integers(0, 2**63, count).astype(np.uint64),
        labels=np.array(labels),
        groups=np.full(count, NONE),
        given=np.full(count, NONE, np.int8),
        descriptors=None,
        ends=[count],
    )
    return replace(items, **changes)


@st.composite
def data_sets(draw: st.DrawFn) -> Items:
    """Up to 5 batches of items of up to 4 labels; some look like others, some are in groups, some have a given split."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    ends = np.cumsum(draw(st.lists(st.integers(0, 40), min_size=1, max_size=5)))
    count = int(ends[-1])
    things = numbers.integers(-100, 100, (max(1, count // draw(st.integers(1, 4))), DESCRIPTOR_LENGTH))
    descriptors = things[numbers.integers(0, len(things), count)] + numbers.integers(-20, 20, (count, DESCRIPTOR_LENGTH))
    groups = np.where(numbers.random(count) < draw(st.sampled_from([0, 0.3, 1])), numbers.integers(0, 12, count), NONE)
    given_splits = draw(st.sampled_from([(NONE,), (TRAIN, TEST), (TRAIN, VAL, TEST), (TRAIN,), (NONE, TRAIN, TEST)]))
    return Items(
        keys=numbers.integers(0, 2**63, count).astype(np.uint64),
        labels=numbers.integers(0, draw(st.integers(1, 4)), count),
        groups=groups,
        given=numbers.choice(np.array(given_splits, np.int8), count),
        descriptors=descriptors.astype(np.int8) if draw(st.booleans()) else None,
        ends=ends.tolist(),
    )


def same(one: Assignment, other: Assignment) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("split", "cluster", "left_out"))


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data_sets())
def test_every_item_has_one_split_or_one_reason_why_not(items: Items) -> None:
    found = assign(items, **SHARES)
    assert np.array_equal(found.split == NONE, found.left_out != NONE)
    assert set(found.split.tolist()) <= {NONE, TRAIN, VAL, TEST}
    assert len(found.similar) == len(items.ends)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data_sets())
def test_no_group_and_no_cluster_is_on_two_sides(items: Items) -> None:
    found = assign(items, **SHARES)
    placed = found.split != NONE
    for kept_together in (found.cluster, items.groups):
        chosen = placed & (kept_together != NONE)
        sides = np.unique(np.column_stack([kept_together[chosen], found.split[chosen]]), axis=0)
        assert len(sides) == len(np.unique(sides[:, 0]))


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data_sets())
def test_later_batches_move_nothing_of_the_earlier_ones(items: Items) -> None:
    found = assign(items, **SHARES)
    for batches, end in enumerate(items.ends, start=1):
        before = assign(cut(items, batches), **SHARES)
        assert same(before, Assignment(found.split[:end], found.cluster[:end], found.left_out[:end], []))


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(data_sets())
def test_the_same_items_get_the_same_splits(items: Items) -> None:
    assert same(assign(items, **SHARES), assign(items, **SHARES))


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data_sets())
def test_a_given_split_is_kept_or_the_item_is_left_out(items: Items) -> None:
    found = assign(items, **SHARES)
    differs = (items.given != NONE) & (found.split != NONE) & (found.split != items.given)
    assert (items.given[differs] == TRAIN).all()  # only train items may be allocated to a split that the source doesn't give
    first_given = [int(np.flatnonzero(items.given == s)[0]) if (items.given == s).any() else len(items.given) for s in range(3)]
    batch = np.searchsorted(items.ends, np.arange(len(items.given)), side="right")
    for item in np.flatnonzero(differs):
        missing_then = first_given[found.split[item]] >= items.ends[batch[item]]
        joined_older = batch[found.cluster[item]] < batch[item]
        assert missing_then or joined_older


@pytest.mark.slow
def test_looks_that_stay_in_their_file_give_the_same_splits(tmp_path: Path) -> None:
    descriptors = (
        np.random.default_rng(2).integers(-100, 100, (5000, DESCRIPTOR_LENGTH)).astype(np.int8)
    )  # more than are read at a time
    descriptors[4000:] = descriptors[:1000]
    descriptors.tofile(tmp_path / "descriptors")
    items = plain([0, 1] * 2500, ends=[3000, 5000])
    found = assign(replace(items, descriptors=DescriptorFile(tmp_path / "descriptors")), **SHARES)
    assert same(found, assign(replace(items, descriptors=descriptors), **SHARES))
    assert found.cluster[4999] == 999


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(data_sets())
def test_two_look_alikes_of_one_batch_never_stand_on_both_sides(items: Items) -> None:
    items = cut(items, 1)
    if items.descriptors is None or not len(items.keys):
        return
    found = assign(items, **SHARES)
    end = len(items.keys)
    points = Space.fit(items.descriptors, end).project(items.descriptors, end).astype(np.float32)
    one, other = np.nonzero(points @ points.T >= (found.similar[0] or 0) + 1e-3)
    placed = (found.split[one] != NONE) & (found.split[other] != NONE)
    assert (found.split[one] == found.split[other])[placed].all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=6), st.integers(0, 1000))
def test_shares_are_met_for_each_label_and_small_labels_are_in_every_split(counts: list[int], seed: int) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    found = assign(plain(labels), val_share=0.1, test_share=0.2, seed=seed)
    for label, count in enumerate(counts):
        train, val, test = np.bincount(found.split[np.array(labels) == label], minlength=3)
        assert min(train, val, test) >= 1
        assert abs(test - 0.2 * count) <= 1 and abs(val - 0.1 * count) <= 1


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 12), st.integers(1, 10), st.integers(0, 1000))
def test_a_label_of_a_few_large_groups_is_in_every_split(groups: int, size: int, seed: int) -> None:
    items = plain([0] * (groups * size), groups=np.repeat(np.arange(groups), size))
    found = assign(items, val_share=0.1, test_share=0.2, seed=seed)
    assert (np.bincount(found.split, minlength=3) >= size).all()


@pytest.mark.parametrize("odd", range(5))
def test_of_a_labels_few_clusters_the_most_different_one_is_held_out(odd: int) -> None:
    # Five clusters of six: four point nearly the same way, one stands at right angles to them.
    clusters, points = np.repeat(np.arange(5) * 6, 6), np.full((30, 2), (1, 0), np.float16)
    points[odd * 6 : odd * 6 + 6] = (0, 1)
    split, have = np.full(30, NONE, np.int8), np.zeros((3, 1))
    order = np.random.default_rng(odd).permutation(30).astype(np.uint64)
    allocate(np.arange(30), clusters, np.zeros(30, int), points, order, have, {TRAIN: 1.0, TEST: 0.2}, split)
    assert set(split[odd * 6 : odd * 6 + 6]) == {TEST}
    assert (split == TRAIN).sum() == 24


def test_another_seed_gives_other_splits() -> None:
    items = plain([0] * 100)
    assert not same(assign(items, **SHARES), assign(items, **SHARES | {"seed": 8}))


def test_the_order_of_the_ids_decides_not_the_order_of_arrival() -> None:
    items, turned = plain([0] * 100), np.arange(100)[::-1]
    found, found_turned = assign(items, **SHARES), assign(replace(items, keys=items.keys[turned]), **SHARES)
    assert np.array_equal(found.split, found_turned.split[turned])


def test_train_items_in_the_group_of_a_test_item_are_left_out_with_that_reason() -> None:
    given_splits = np.array([TRAIN, TRAIN, TEST, TRAIN], np.int8)
    found = assign(plain([0] * 4, groups=np.array([5, 6, 5, 6]), given=given_splits), **SHARES)
    assert found.split[0] == NONE and REASONS[found.left_out[0]] == "group-in-test"
    assert found.split[2] == TEST and found.split[1] == found.split[3] != NONE


def test_train_items_that_look_like_a_test_item_are_left_out_with_that_reason() -> None:
    images = np.random.default_rng(3).integers(0, 256, (40, 32, 32, 1)).astype(np.uint8)
    images[1] = images[0] // 2 + 60  # the same thing under another exposure
    given_splits = np.array([TEST, TRAIN] + [TRAIN] * 38, np.int8)
    found = assign(plain([0] * 40, given=given_splits, descriptors=descriptors_of(images)), **SHARES)
    assert REASONS[found.left_out[1]] == "looks-like-test"
    assert np.flatnonzero(found.split == NONE).tolist() == [1]


def test_an_item_that_links_two_splits_is_left_out_and_moves_neither() -> None:
    groups = np.array([0] * 2 + [1] * 2 + [NONE])
    images = np.random.default_rng(3).integers(0, 256, (44, 32, 32, 1)).astype(np.uint8)
    groups = np.array([0, 1] + [NONE] * 40 + [1, NONE])
    images[42] = images[0] // 2 + 60  # in the second item's group, and it resembles the first
    given_splits = np.array([TRAIN, TEST] + [NONE] * 42, np.int8)
    found = assign(
        plain([0] * 44, groups=groups, given=given_splits, descriptors=descriptors_of(images), ends=[42, 44]), **SHARES
    )
    assert found.split[:2].tolist() == [TRAIN, TEST]
    assert REASONS[found.left_out[42]] == "links-two-splits"


def test_val_is_dealt_out_of_train_where_the_source_gives_train_and_test_only() -> None:
    given_splits = np.array([TRAIN] * 80 + [TEST] * 20, np.int8)
    found = assign(plain([0, 1] * 50, given=given_splits), **SHARES)
    assert (found.split[80:] == TEST).all()
    assert np.bincount(found.split[:80], minlength=3).tolist() == [72, 8, 0]


def test_what_looks_alike_by_nature_does_not_collapse_into_one_cluster() -> None:
    numbers = np.random.default_rng(5)
    thing = numbers.integers(-100, 100, DESCRIPTOR_LENGTH)
    drifting = thing + np.cumsum(
        numbers.integers(-6, 7, (400, DESCRIPTOR_LENGTH)), axis=0
    )  # each descriptors much like the one before
    descriptors = drifting.clip(-126, 126).astype(np.int8)
    links, similar = look_alikes(Space.fit(descriptors, 400).project(descriptors, 400), 0)
    assert similar > SIMILAR[0]
    assert len(links)


def test_images_without_any_edge_look_like_nothing() -> None:
    images = np.stack([np.full((16, 16, 3), level, np.uint8) for level in range(0, 250, 10)])
    descriptors = descriptors_of(images)
    assert not descriptors.any()
    assert len(look_alikes(Space.fit(descriptors, len(descriptors)).project(descriptors, len(descriptors)), 0)[0]) == 0


def test_looks_hardly_depend_on_exposure_colour_and_size() -> None:
    drawn = np.zeros((96, 96, 3), np.uint8) + 40
    cv2.circle(drawn, (40, 50), 20, (200, 90, 150), -1)
    cv2.line(drawn, (5, 90), (90, 10), (90, 200, 60), 4)
    others = [
        (drawn // 2 + 30),
        np.repeat(cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
        cv2.resize(drawn, (64, 64), interpolation=cv2.INTER_AREA),
    ]
    reference = descriptors_of(drawn[None])[0].astype(float)
    for other in others:
        descriptors = descriptors_of(other[None])[0].astype(float)
        assert reference @ descriptors / np.linalg.norm(reference) / np.linalg.norm(descriptors) > 0.9


def test_a_pattern_finds_each_items_group() -> None:
    names = ["clip_1/frame 0.png", "clip_1/frame 1.png", "clip_2/frame 0.png", "loose.png"]
    groups = groups_of(Group(pattern=r"clip_(\d+)/"), Path(), names, [None, None, None, "own"])
    assert groups == ["1", "1", "2", "own"]


def test_a_csv_names_groups_by_path_or_file_name(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("\ufeffname,group\ndeep/a.png,one\nb.png,two\n", encoding="utf-8")
    assert groups_of(Group(csv="groups.csv"), tmp_path, ["deep/a.png", "deep/b.png"], [None, None]) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (None, "there is no file"),
        ("file,group\na.png,1\n", "lacks a column"),
        ("name,group\nb.png,1\n", "names no group for 1 of 1 items"),
        ("name,group\na.png,1\na.png,2\n", "line 3: the item is in two groups"),
        ("", "lacks a column"),
    ],
)
def test_a_csv_that_does_not_fit_is_wrong_use(tmp_path: Path, content: str | None, reported: str) -> None:
    if content is not None:
        (tmp_path / "groups.csv").write_text(content)
    with pytest.raises(WrongUse, match=reported):
        groups_of(Group(csv="groups.csv"), tmp_path, ["a.png"], [None])


def test_a_pattern_that_fits_nothing_is_wrong_use() -> None:
    with pytest.raises(WrongUse, match="found in no item's path"):
        groups_of(Group(pattern=r"clip_(\d+)"), Path(), ["a.png", "b.png"], [None, None])


@pytest.mark.slow
@pytest.mark.samples
def test_twenty_per_cent_new_photographs_of_tiles_move_none_of_the_old(samples: Path) -> None:
    images, labels = [], []
    with tarfile.open(samples / "magnetic-tile.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".jpg") and (file := archive.extractfile(member)):
                grey = cv2.imdecode(np.frombuffer(io.BytesIO(file.read()).getbuffer(), np.uint8), cv2.IMREAD_GRAYSCALE)
                images.append(cv2.resize(grey, (96, 96), interpolation=cv2.INTER_AREA)[..., None])
                labels.append(member.name.split("MT_")[1].split("/")[0])
    order = np.random.default_rng(0).permutation(len(images))
    descriptors, kinds = descriptors_of(np.stack(images)[order]), np.unique(labels, return_inverse=True)[1][order]
    old = len(images) * 5 // 6
    whole = plain(kinds.tolist(), descriptors=descriptors, ends=[old, len(images)])
    before, after = assign(cut(whole, 1), **SHARES), assign(whole, **SHARES)
    assert np.array_equal(before.split, after.split[:old]) and np.array_equal(before.cluster, after.cluster[:old])
    # Nearly every new photograph shows a tile that the old ones show: it joins them.
    assert (after.cluster[old:] < old).mean() > 0.7
    shares = np.bincount(after.split[after.split != NONE], minlength=3) / (after.split != NONE).sum()
    assert abs(shares[TEST] - 0.2) < 0.05 and abs(shares[VAL] - 0.1) < 0.05
