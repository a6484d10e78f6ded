"""Headers, pixels and looks of images as cameras, drawing programs and attackers make them."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evergreen.media.images import BadImage, Header, decode, inspect, perceptual_hash, prepare, read_header

FORMATS = ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF"]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def photograph(width: int = 40, height: int = 24) -> Image.Image:
    """Smooth colours, different at each corner: left red, right blue, green growing downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([255 - across, down, across], axis=2).astype(np.uint8))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def reason(data: bytes, **limits: int) -> str:
    with pytest.raises(BadImage) as bad:
        inspect(data, **limits)
    assert bad.value.detail and "\n" not in bad.value.detail
    return bad.value.reason


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_has_its_size_read_and_its_pixels_decoded(format_name: str) -> None:
    original = photograph()
    data = encoded(original, format_name)
    assert read_header(data) == Header(format_name, 40, 24, 3)
    pixels = decode(data, 3)
    assert pixels.shape == (24, 40, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(original)).mean() < 8  # GIF has 256 colours, JPEG and WebP are lossy


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "TIFF"])
def test_a_grey_image_has_one_channel(format_name: str) -> None:
    data = encoded(photograph().convert("L"), format_name)
    assert read_header(data).channels == 1
    assert decode(data, 1).shape == (24, 40, 1) and decode(data, 3).shape == (24, 40, 3)


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF"])
def test_cmyk_turns_into_the_colours_that_people_see(format_name: str) -> None:
    data = encoded(Image.new("RGB", (16, 16), RED).convert("CMYK"), format_name)
    assert read_header(data).channels == 4
    red, green, blue = decode(data, 3).mean(axis=(0, 1))
    assert red > 220 and green < 40 and blue < 40


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(format_name: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(ramp), format_name), 1)
    assert np.abs(pixels[:, :, 0].astype(int) - (ramp >> 8)).max() <= 1


@pytest.mark.parametrize("format_name", ["PNG", "GIF", "TIFF", "BMP"])
def test_a_palette_gives_its_colours(format_name: str) -> None:
    data = encoded(Image.new("RGB", (8, 8), BLUE).convert("P"), format_name)
    assert read_header(data).channels == 3
    assert tuple(decode(data, 3)[4, 4]) == BLUE


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_is_white(format_name: str) -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 8, 16))
    data = encoded(image, format_name, **({"lossless": True} if format_name == "WEBP" else {}))
    header = read_header(data)
    assert header.alpha and header.channels == 4
    pixels = decode(data, 3)
    assert tuple(pixels[8, 4]) == RED and tuple(pixels[8, 12]) == (255, 255, 255)


def test_a_half_transparent_pixel_is_half_white() -> None:
    assert tuple(decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))), 3)[0, 0]) == (127, 127, 127)


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, *RED])
    image.putpixel((0, 0), 1)
    pixels = decode(encoded(image, "PNG", transparency=0), 3)
    assert tuple(pixels[0, 0]) == RED and tuple(pixels[2, 2]) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_turned_photograph_is_turned_upright(format_name: str, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(), format_name, exif=exif.tobytes())
    header = read_header(data)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert (header.height, header.width) == upright.shape[:2] == ((40, 24) if orientation >= 5 else (24, 40))
    assert np.abs(decode(data, 3).astype(int) - upright).max() <= 8
    assert inspect(data).header == header


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_animated_image_is_refused_because_no_frame_is_the_labelled_one(format_name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], format_name, save_all=True, append_images=frames[1:])
    assert read_header(data).frames == 2
    assert reason(data) == "animated"


def refused_within_100_mb(folder: Path, contents: list[bytes]) -> list[str]:
    """The reasons for which a process of its own refuses these contents, while its memory grows by less than 100 MB."""
    code = """if True:
        import resource, sys
        from pathlib import Path
        from evergreen.media.images import BadImage, decode, inspect, prepare
        small, *large = [Path(name).read_bytes() for name in sys.argv[1:]]
        inspect(small), decode(small, 3), prepare(small, 8, 8, 3)  # what the libraries take by themselves
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for data in large:
            for use in (inspect, lambda data: decode(data, 3), lambda data: prepare(data, 8, 8, 3)):
                try:
                    use(data)
                except BadImage as bad:
                    print(bad.reason)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    paths = []
    for number, content in enumerate([encoded(photograph()), *contents]):
        paths.append(folder / str(number))
        paths[-1].write_bytes(content)
    answer = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    *reasons, more_mb = answer.stdout.split()
    assert int(more_mb) < 100
    return reasons


def test_two_hundred_megapixels_are_refused_by_the_header_alone(tmp_path: Path) -> None:
    contents = claiming_two_hundred_megapixels()
    assert refused_within_100_mb(tmp_path, contents) == ["too-large"] * 3 * len(contents)


@pytest.mark.parametrize("chunk", [b"IDAT", b"IEND", b"tEXt"])
def test_a_chunk_that_claims_gigabytes_is_refused_before_they_are_reserved(tmp_path: Path, chunk: bytes) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Comment", "a note")
    data = bytearray(encoded(photograph(), pnginfo=text))
    place = data.index(chunk) - 4
    data[place : place + 4] = struct.pack(">I", 3 * 2**29)
    assert refused_within_100_mb(tmp_path, [bytes(data)]) == ["truncated"] * 3


def test_words_in_a_comment_are_taken_for_nothing_else() -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Comment", "tRNS acTL \0\0\0\2 IDAT eXIf")
    assert read_header(encoded(photograph(), pnginfo=text)) == Header("PNG", 40, 24, 3)


def claiming_two_hundred_megapixels() -> list[bytes]:
    """One small file of each format, with a size of at least 14,143 × 14,143 patched into its header."""
    side = 16_000
    jpeg = bytearray(encoded(photograph(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    bmp = bytearray(encoded(photograph(), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    gif = bytearray(encoded(photograph(), "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    webp = bytearray(encoded(photograph(), "WEBP"))
    webp[26:30] = struct.pack("<HH", side, side)
    lossless = bytearray(encoded(photograph(), "WEBP", lossless=True))
    lossless[21:25] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    tiff = bytearray(encoded(photograph(), "TIFF"))
    for tag in (256, 257):
        entry = tiff.index(struct.pack("<HH", tag, 4))
        tiff[entry + 8 : entry + 12] = struct.pack("<I", side)
    return [png_claiming(20_000, 10_000), *map(bytes, (jpeg, bmp, gif, webp, lossless, tiff))]


def test_a_limit_of_pixels_is_exact() -> None:
    data = encoded(photograph(40, 24))
    assert inspect(data, max_pixels=960).header.width == 40
    assert reason(data, max_pixels=959) == "too-large"


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.2, 0.6, 0.95])
def test_a_truncated_file_is_refused_or_its_pixels_are_all_there(format_name: str, kept: float) -> None:
    data = encoded(photograph(200, 120), format_name)
    try:
        header = inspect(data[: int(len(data) * kept)]).header
    except BadImage as bad:
        assert bad.reason in ("truncated", "undecodable", "not-an-image")
    else:
        assert format_name == "JPEG" and (header.width, header.height) == (200, 120)  # OpenCV fills what is missing in grey


def test_no_bytes_are_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "text", [b"a note on the pictures\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\0"]
)
def test_what_is_no_image_is_called_so_whatever_its_name(text: bytes) -> None:
    assert reason(text) == "not-an-image"


def test_the_bytes_say_the_format_and_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    path.write_bytes(encoded(photograph(), "JPEG"))
    assert inspect(path.read_bytes()).header.format == "JPEG"


NOT_READ = {
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
    "jpeg-xl": b"\xff\x0a" + bytes(200),
    "jpeg-2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "dicom": bytes(128) + b"DICM" + bytes(200),
    "raw": b"II*\0\x10\0\0\0CR\2\0" + bytes(200),
    "psd": b"8BPS\0\1" + bytes(200),
    "openexr": b"\x76\x2f\x31\x01" + bytes(200),
    "pnm": b"P5\n2 2\n255\n" + bytes(4),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_a_known_format_that_is_not_read_is_named_with_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evergreen.media.images._reads_heif", lambda: False)
    with pytest.raises(BadImage, match="this format is not read: (convert|develop|export|install)") as bad:
        inspect(NOT_READ[name])
    assert bad.value.reason == name


def test_the_preview_in_a_cameras_raw_file_is_not_taken_for_the_picture() -> None:
    from PIL import TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\1\4\0\0"  # DNGVersion
    tags.tagtype[50706] = 1
    assert reason(encoded(photograph(), "TIFF", tiffinfo=tags)) == "raw"


def test_heic_is_read_where_its_reader_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(photograph()).save(file, quality=90)
    assert read_header(file.getvalue()) == Header("HEIF", 40, 24, 3)
    assert np.abs(decode(file.getvalue(), 3).astype(int) - np.asarray(photograph())).mean() < 8


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_an_image_without_area_is_refused(size: tuple[int, int]) -> None:
    assert reason(png_claiming(*size)) == "undecodable"


def test_floating_point_pixels_are_refused_because_their_range_is_unknown() -> None:
    assert reason(encoded(Image.new("F", (8, 8), 0.5), "TIFF")) == "undecodable"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (100, 7), (24, 40)])
def test_a_models_input_has_the_asked_shape(size: tuple[int, int], channels: Any) -> None:
    height, width = size
    pixels = prepare(encoded(photograph()), height, width, channels)
    assert pixels.shape == (height, width, channels) and pixels.dtype == np.uint8


def test_an_image_of_the_models_size_is_not_touched() -> None:
    assert np.array_equal(prepare(encoded(photograph()), 24, 40, 3), np.asarray(photograph()))


def test_colours_stay_in_their_corners_when_an_image_is_resized() -> None:
    pixels = prepare(encoded(photograph(400, 240)), 8, 8, 3).astype(int)
    assert pixels[0, 0, 0] > 200 > 100 > pixels[0, 7, 0] and pixels[7, 0, 1] > 200 > 100 > pixels[0, 0, 1]


@pytest.mark.parametrize("format_name", FORMATS)
def test_even_one_pixel_is_an_image(format_name: str) -> None:
    data = encoded(Image.new("L", (1, 1), 200), format_name)
    looks = inspect(data)
    assert (looks.header.width, looks.header.height) == (1, 1)
    assert looks.brightness == pytest.approx(200 / 255, abs=0.02) and looks.contrast == 0 == looks.sharpness
    assert prepare(data, 8, 8, 1).shape == (8, 8, 1)


def test_brightness_and_contrast_are_those_of_the_grey_image() -> None:
    half = Image.new("L", (20, 20), 0)
    half.paste(255, (0, 0, 10, 20))
    looks = inspect(encoded(half))
    assert looks.brightness == pytest.approx(0.5) and looks.contrast == pytest.approx(0.5)


def test_an_image_of_a_single_colour_has_no_contrast() -> None:
    for grey in range(0, 256, 5):
        looks = inspect(encoded(Image.new("L", (64, 48), grey)))
        assert looks.contrast == 0 and looks.sharpness == 0


def test_a_blurred_image_is_less_sharp() -> None:
    from PIL import ImageFilter

    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (600, 600), np.uint8))
    blurred = noise.filter(ImageFilter.GaussianBlur(5))
    assert inspect(encoded(blurred)).sharpness < inspect(encoded(noise)).sharpness / 10


def test_the_perceptual_hash_hardly_changes_with_size_format_and_brightness() -> None:
    rough = np.random.default_rng(2).integers(0, 200, (6, 6), np.uint8)
    picture = Image.fromarray(rough).resize((300, 300), Image.Resampling.BICUBIC)
    first = inspect(encoded(picture)).perceptual_hash
    for other in (
        encoded(picture.resize((120, 120))),
        encoded(picture, "JPEG", quality=40),
        encoded(picture.point([min(255, level + 20) for level in range(256)])),
    ):
        assert (first ^ inspect(other).perceptual_hash).bit_count() <= 6
    different = Image.fromarray(rough[::-1].T.copy()).resize((300, 300), Image.Resampling.BICUBIC)
    assert (first ^ inspect(encoded(different)).perceptual_hash).bit_count() > 16


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_perceptual_hash_of_any_image_fits_64_bits(height: int, width: int, seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    assert 0 <= perceptual_hash(grey) < 2**64


@given(st.sampled_from(FORMATS), st.data())
@settings(max_examples=300, deadline=None)
def test_changed_bytes_give_pixels_of_the_inspected_size_or_a_bad_image(format_name: str, drawn: st.DataObject) -> None:
    data = bytearray(encoded(photograph(), format_name))
    for _ in range(drawn.draw(st.integers(1, 6))):
        data[drawn.draw(st.integers(0, min(len(data), 400) - 1))] = drawn.draw(st.integers(0, 255))
    try:
        header = inspect(bytes(data), 1_000_000).header
        assert decode(bytes(data), 3, 1_000_000).shape == (header.height, header.width, 3)
    except BadImage as bad:
        assert bad.reason in ("not-an-image", "truncated", "too-large", "animated", "undecodable")


def test_a_bad_image_survives_the_way_between_processes() -> None:
    bad = pickle.loads(pickle.dumps(BadImage("truncated", "too short")))
    assert (bad.reason, bad.detail, str(bad)) == ("truncated", "too short", "truncated: too short")
