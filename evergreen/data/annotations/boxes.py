"""Makes items of images with boxes: a crop of each box, or the whole image with a label by a rule."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from evergreen.data.annotations.base import Annotation, ImageRule
from evergreen.data.annotations.crops import Cropper, Rectangle
from evergreen.data.sources.base import Box, SourceEntry, Stated
from evergreen.media.images import BadImage, read_header

LEAST_INSIDE = 0.5  # of a box's area. What lies outside the image is cut off: boxes are often drawn over the edge
SEVERAL = "images with boxes of several labels"
NO_BOX = "annotated images without a box"

Size = tuple[int, int]
Later = Callable[[], Sequence[SourceEntry]]  # the entries of an image, once its boxes are cut out


def items_of_boxes(
    entries: Iterator[SourceEntry], annotations: Mapping[str, Sequence[Annotation]], rule: ImageRule, max_pixels: int
) -> Iterator[SourceEntry]:
    """The entries of a source, with those of annotated images replaced by their items.

    Args:
        annotations: by the name of the image's entry.
        max_pixels: larger images are not decoded for crops.
    """
    with Cropper(max_pixels) as cropper:
        waiting: deque[Later] = deque()
        for entry in entries:
            found = annotations.get(entry.name, ())
            waiting += [_of_image(entry, one, rule, cropper) for one in found] or [_now(entry)]
            while len(waiting) > cropper.max_pending:
                yield from waiting.popleft()()
        while waiting:
            yield from waiting.popleft()()


def _of_image(entry: SourceEntry, annotation: Annotation, rule: ImageRule, cropper: Cropper) -> Later:
    if entry.problem or entry.data is None:
        return _now(replace(entry, stated=annotation.stated))
    try:
        header = read_header(entry.data)
    except BadImage as bad:
        return _now(_refused(entry, annotation.stated, bad.reason, bad.detail))
    size = header.width, header.height
    if annotation.size not in (None, size):
        stated, found = ("×".join(map(str, one)) for one in (annotation.size or size, size))
        detail = f"{annotation.where}: the annotations are of an image of {stated} pixels, and this one has {found}"
        return _now(_refused(entry, annotation.stated, "other-size", detail))
    boxes = [in_pixels(box, size) if annotation.fractions else box for box in annotation.stated.boxes]
    stated_of_image = replace(annotation.stated, boxes=tuple(boxes))
    if boxes and rule.boxes == "crop":
        return _crops(entry, stated_of_image, annotation.where, rule, size, cropper)
    for number, box in enumerate(boxes):
        if problem := _problem(box, size):
            return _now(_refused(entry, stated_of_image, problem, _named(annotation.where, number, box, size)))
    return _now(replace(entry, stated=_labelled(stated_of_image, rule)))


def _crops(entry: SourceEntry, stated: Stated, where: str, rule: ImageRule, size: Size, cropper: Cropper) -> Later:
    """An entry for each box; all crops of an image are one group unless another is stated."""
    assert entry.data is not None
    found: list[SourceEntry] = []
    rectangles = []
    for number, box in enumerate(stated.boxes):
        own = replace(stated, label=box.label, group=stated.group or entry.name, boxes=(box,))
        name = f"{entry.name}/{number:05d}.png"
        problem = _problem(box, size)
        detail = _named(where, number, box, size) if problem else ""
        found.append(
            replace(entry, name=name, data=None, size_bytes=0, problem=problem, detail=detail, packed_in=entry.name, stated=own)
        )
        if problem is None:
            rectangles.append(rectangle(box, rule.margin, size))
    answer = cropper.submit(entry.data, rectangles) if rectangles else None

    def later() -> list[SourceEntry]:
        cut = answer.result() if answer is not None else []
        if isinstance(cut, BadImage):
            return [one if one.problem else replace(one, problem=cut.reason, detail=cut.detail) for one in found]
        pieces = iter(cut)
        return [one if one.problem else replace(one, data=(data := next(pieces)), size_bytes=len(data)) for one in found]

    return later


def in_pixels(box: Box, size: Size) -> Box:
    """A box in fractions of an image's size, in pixels."""
    width, height = size
    return Box(box.label, box.x * width, box.y * height, box.width * width, box.height * height)


def rectangle(box: Box, margin: float, size: Size) -> Rectangle:
    """The whole pixels that a box touches, with a margin as a fraction of its sides, inside an image of this size."""
    across, down = margin * box.width, margin * box.height
    # Annotations have rounded numbers: what touches the next pixel by less than a hundredth of it does not count.
    left, top = (max(0, math.floor(edge + 0.01)) for edge in (box.x - across, box.y - down))
    right, bottom = math.ceil(box.x + box.width + across - 0.01), math.ceil(box.y + box.height + down - 0.01)
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return Rectangle(left, top, max(left + 1, min(right, size[0])), max(top + 1, min(bottom, size[1])))


def _problem(box: Box, size: Size) -> str | None:
    """Why a box cannot be used."""
    if not all(map(math.isfinite, (box.x, box.y, box.width, box.height))) or box.width <= 0 or box.height <= 0:
        return "box-without-area"
    across = min(box.x + box.width, size[0]) - max(box.x, 0)
    down = min(box.y + box.height, size[1]) - max(box.y, 0)
    is_inside = across > 0 and down > 0 and across * down >= LEAST_INSIDE * box.width * box.height
    return None if is_inside else "box-outside"


def _named(where: str, number: int, box: Box, size: Size) -> str:
    return (
        f"{where}: box {number + 1} ({box.label}) begins at {box.x:g}, {box.y:g} and is {box.width:g}×{box.height:g} pixels, in an image of "
        f"{size[0]}×{size[1]}"
    )


def _labelled(stated: Stated, rule: ImageRule) -> Stated:
    """What is stated of a whole image, with the label that its boxes give by the rule."""
    if rule.boxes == "keep":
        return stated
    if not stated.boxes:
        return replace(stated, label=stated.label or rule.without_boxes, unlabelled=NO_BOX)
    if rule.boxes == "largest":
        return replace(stated, label=max(stated.boxes, key=lambda box: box.width * box.height).label)
    labels = {box.label for box in stated.boxes}
    return replace(stated, label=labels.pop() if len(labels) == 1 else None, unlabelled=SEVERAL)


def _refused(entry: SourceEntry, stated: Stated, problem: str, detail: str) -> SourceEntry:
    return replace(entry, problem=problem, detail=detail, stated=stated)


def _now(entry: SourceEntry) -> Later:
    return lambda: [entry]
