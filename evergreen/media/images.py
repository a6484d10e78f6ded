"""Reads the headers of encoded images, decodes them, and computes statistics of their pixels. All input is treated as
untrusted.

OpenCV decodes (it is the fastest, and applies EXIF rotation). Pillow decodes what OpenCV does not do well: transparent images,
which are put on white, and images that OpenCV refuses. The size is read and checked before decoding.

Images with more than 8 bits per value ("deep": microscopes, X-ray and thermal cameras) store 10 or 12 bits in 16, or measured
values in 32. A `PixelRange` defines which of their values are black and white, one for a whole data set;
`evergreen.media.depth` chooses it.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from evergreen.errors import BadItem
from evergreen.media.resizing import Resize, resize

if TYPE_CHECKING:
    import numpy as np

Channels = Literal[1, 3]

MAX_PIXELS = 50_000_000  # the default of a scenario's collect.max_pixels


# Common formats that are not supported, and what to do about them.
NOT_READ = {
    "heic": "install the reader (pip install pillow-heif), or convert it: magick mogrify -format jpg *.heic",
    "jpeg-xl": "convert it to PNG: djxl IN.jxl OUT.png",
    "jpeg-2000": "convert it to PNG: magick mogrify -format png *.jp2",
    "dicom": "convert it to 16-bit PNG: dcmj2pnm +on2 IN.dcm OUT.png",
    "raw": "develop it to JPEG or 16-bit TIFF, for example with darktable-cli",
    "psd": "export it to PNG",
    "openexr": "convert it to a floating-point TIFF of one channel, or to PNG",
    "pnm": "convert it to PNG: magick mogrify -format png *.pgm",
}


class BadImage(BadItem):
    """The bytes are not a usable image.

    Attributes:
        reason: a key for counting: `empty`, `not-an-image`, `truncated`, `too-large`, `animated`, `damaged`, `undecodable`, or
            a known format that is not supported (one of `NOT_READ`).
        detail: a clause for users.
    """


class PixelRange(NamedTuple):
    """The values of a deep image that become black and white, in the file's own units. Values between them are scaled linearly,
    values outside are clipped. Images with 8 bits stay as they are."""

    low: float
    high: float

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Convert numbers of any dtype to uint8 of the same shape; NaN becomes black."""
        import numpy as np

        if values.dtype == np.uint16:
            table: np.ndarray = _table(self)
            looked_up: np.ndarray = table[values]
            return looked_up
        numbers = np.nan_to_num(values.astype(np.float64), nan=self.low, posinf=self.high, neginf=self.low)
        scaled = (numbers - self.low) * (255 / (self.high - self.low))
        grey: np.ndarray = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        return grey

    def __str__(self) -> str:
        return f"{{low: {self.low:.10g}, high: {self.high:.10g}}}"


@cache
def _table(pixel_range: PixelRange) -> np.ndarray:
    """uint8 (65536,): the result for each 16-bit value."""
    import numpy as np

    return pixel_range.apply(np.arange(2**16, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Header:
    """The properties of an image that can be read without decoding it.

    Attributes:
        format: `JPEG`, `PNG`, `BMP`, `GIF`, `WEBP`, `TIFF`, `AVIF`, or `HEIF` if pillow-heif is installed.
        width, height: pixels, after EXIF rotation.
        channels: 1 grey, 3 colour (including palettes), 4 with alpha or CMYK.
        frames: 1, or 2 for two or more.
        alpha: whether pixels may be transparent.
        deep: whether values have more than 8 bits.
    """

    format: str
    width: int
    height: int
    channels: int
    frames: int = 1
    alpha: bool = False
    deep: bool = False


@dataclass(frozen=True, slots=True)
class Inspection:
    """The header and statistics of the pixels, which become the data set's columns of these names (docs/internals.md).

    Attributes:
        brightness, contrast: mean and standard deviation of the grey image, 0 to 1.
        sharpness: variance of the Laplacian of the grey image (0 to 255), shrunk to a long side of at most 256 pixels.
        perceptual_hash: 64 bits, see `perceptual_hash`.
    """

    header: Header
    brightness: float
    contrast: float
    sharpness: float
    perceptual_hash: int


def read_header(data: bytes) -> Header:
    """Read the format and size of an encoded image without decoding it.

    Raises:
        BadImage: `empty`, `not-an-image`, `truncated`, `undecodable` or one of `NOT_READ`.
    """
    if not data:
        raise BadImage("empty", "the file has no bytes")
    try:
        if data.startswith(b"\xff\xd8\xff"):
            header = _jpeg_header(data)
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            header = _png_header(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            header = _webp_header(data)
        elif data.startswith((b"GIF87a", b"GIF89a")):
            header = _gif_header(data)
        elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) and data[8:10] != b"CR":
            header = _tiff_header(data)
        elif data.startswith(b"BM"):
            header = _bmp_header(data)
        elif (brand := _iso_media_brand(data)) == "avif":
            header = _container_header("AVIF", data)
        elif brand == "heic" and _reads_heif():
            header = _container_header("HEIF", data)
        elif known := brand if brand in NOT_READ else _format_not_read(data):
            raise BadImage(known, f"this format is not read: {NOT_READ[known]}")
        else:
            raise BadImage("not-an-image", f"the file begins with {data[:12]!r}")
    except BadImage:
        raise
    except (struct.error, IndexError, EOFError):
        raise BadImage("truncated", "the file ends inside its header") from None
    except Exception as error:  # noqa: BLE001 (Pillow's parsers raise many kinds on mutated headers)
        raise BadImage(_why(error), f"unreadable header: {error}") from None
    if header.width < 1 or header.height < 1:
        raise BadImage("undecodable", f"its header says {header.width}×{header.height} pixels")
    return header


def decode(data: bytes, channels: Channels, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None) -> np.ndarray:
    """Decode one image. EXIF rotation is applied, CMYK and palettes are converted to RGB, transparent pixels are put on white.

    Args:
        pixel_range: by which deep images are converted to 8 bits; without it 16 bits lose the lower 8, and 32 bits are refused.

    Returns:
        uint8 (height, width, channels), RGB order, 0 to 255.

    Raises:
        BadImage: for any of its reasons; images with more than `max_pixels` or several frames are refused before decoding.
    """
    pixels = _decode(checked_header(data, max_pixels), data, channels, pixel_range)
    return pixels if channels == 3 else pixels[:, :, None]


def prepare(
    data: bytes,
    height: int,
    width: int,
    channels: Channels,
    max_pixels: int = MAX_PIXELS,
    pixel_range: PixelRange | None = None,
    mode: Resize = "stretch",
) -> np.ndarray:
    """Convert an encoded image to a model's input. Training and serving both use this function, so that they can't differ.

    Args:
        pixel_range: as in `decode`; the one with which the model was trained.
        mode: as in `evergreen.media.resizing.resize`; the one with which the model was trained.

    Returns:
        uint8 (height, width, channels), RGB order, 0 to 255.

    Raises:
        BadImage: as in `decode`.
    """
    pixels = _decode(checked_header(data, max_pixels), data, channels, pixel_range)
    pixels = resize(pixels, height, width, mode)
    return pixels if channels == 3 else pixels[:, :, None]


def inspect(data: bytes, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None) -> Inspection:
    """Decode an image once, and return its header and statistics.

    Raises:
        BadImage: as in `decode`.
    """
    import cv2

    header = checked_header(data, max_pixels)
    grey = _decode(header, data, 1, pixel_range)
    height, width = grey.shape
    if (width, height) != (header.width, header.height):  # a rotation that only the decoder found
        header = replace(header, width=width, height=height)
    mean, variance = _mean_and_variance(grey)
    longest = max(height, width)
    small = grey
    if longest > 256:
        size = (max(1, round(width * 256 / longest)), max(1, round(height * 256 / longest)))
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, sharpness = _mean_and_variance(cv2.Laplacian(small, cv2.CV_16S))
    return Inspection(header, mean / 255, variance**0.5 / 255, sharpness, perceptual_hash(small))


def deep_values(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray | None:
    """The values of a deep image as stored in the file, (height, width) or (height, width, 3); None for any other image.

    Raises:
        BadImage: as in `decode`.
    """
    header = checked_header(data, max_pixels)
    return _deep_values(header, data) if header.deep else None


def perceptual_hash(grey: np.ndarray) -> int:
    """Compute a hash of 64 bits that hardly changes if the image is scaled, re-encoded or slightly brightened.

    The bits say which of the 8×8 lowest frequencies of the 32×32 image's cosine transform are above their median (pHash: Zauner
    2010, "Implementation and Benchmarking of Perceptual Image Hash Functions").

    Args:
        grey: uint8 (height, width).
    """
    import cv2
    import numpy as np

    if grey.shape != (32, 32):
        shrinks = min(grey.shape) >= 32
        grey = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR_EXACT)
    cosines = _cosines()
    low = (cosines @ grey.astype(np.float64) @ cosines.T).ravel()
    ordered = np.sort(low)
    bits = low > (ordered[31] + ordered[32]) / 2
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _cosines() -> np.ndarray:
    """float64 (8, 32): the lowest frequencies of the cosine transform, rounded to integers, so that every sum is exact and the
    hash is the same on every processor."""
    import numpy as np

    frequency, position = np.arange(8)[:, None], np.arange(32)[None, :]
    basis: np.ndarray = np.rint(4096 * np.cos(np.pi * frequency * (2 * position + 1) / 64))
    return basis


def _mean_and_variance(pixels: np.ndarray) -> tuple[float, float]:
    """The mean and variance, computed from integers so that they are the same on every processor."""
    import cv2

    total, squares = int(cv2.sumElems(pixels)[0]), int(cv2.norm(pixels, cv2.NORM_L2SQR))
    # OpenCV's sum of squares may be one too small: the variance of a single colour would be negative.
    return total / pixels.size, max(0, squares * pixels.size - total * total) / pixels.size**2


def checked_header(data: bytes, max_pixels: int) -> Header:
    """The header of an image with one frame and at most so many pixels.

    Raises:
        BadImage: as `read_header`, and for more frames or pixels.
    """
    header = read_header(data)
    if header.width * header.height > max_pixels:
        raise BadImage("too-large", f"{header.width}×{header.height} pixels; at most {max_pixels:,} are allowed")
    if header.frames > 1:
        raise BadImage("animated", "it has several frames, and nothing says which one the label is for")
    return header


def _decode(header: Header, data: bytes, channels: Channels, pixel_range: PixelRange | None) -> np.ndarray:
    """uint8 (height, width) for one channel, (height, width, 3) RGB for three."""
    if header.deep and pixel_range is not None:
        return _decode_deep(header, data, channels, pixel_range)
    cv2 = quiet_cv2()
    if not header.alpha and header.format not in ("AVIF", "HEIF"):  # OpenCV ignores their rotation
        pixels = _decode_with_cv2(data, cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB)
        if pixels is not None and pixels.dtype == "uint8":
            return pixels
    return decode_with_pillow(header, data, channels)


def _decode_with_cv2(data: bytes, flags: int) -> np.ndarray | None:
    import numpy as np

    cv2 = quiet_cv2()
    try:
        found: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return found


def _decode_deep(header: Header, data: bytes, channels: Channels, pixel_range: PixelRange) -> np.ndarray:
    """As `_decode`, with the values from `pixel_range.low` to `high` scaled to 0 to 255."""
    import numpy as np

    cv2 = quiet_cv2()
    pixels = pixel_range.apply(_deep_values(header, data))
    if pixels.ndim == 2 and channels == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if header.alpha:
        alpha = _alpha(header, data)
        if pixels.ndim == 3:
            alpha = alpha[:, :, None]
        pixels = np.rint(pixels * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 and channels == 1 else pixels


def _deep_values(header: Header, data: bytes) -> np.ndarray:
    """(height, width) or (height, width, 3) RGB, of the file's own dtype, without alpha: transparent pixels keep their
    colour."""
    import numpy as np
    from PIL import ImageOps

    cv2 = quiet_cv2()
    values = _decode_with_cv2(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if values is not None and values.ndim in (2, 3):
        return values if values.ndim == 2 else np.ascontiguousarray(values[:, :, 2::-1])
    try:
        with opened(header.format, data) as image:
            image.load()
            turned = ImageOps.exif_transpose(image)
            if turned.mode in ("I", "F") or turned.mode.startswith("I;16"):
                values = np.asarray(turned)
                return values.astype(values.dtype.newbyteorder("="))
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds on mutated bytes)
        raise BadImage(_why(error), str(error) or type(error).__name__) from None
    raise BadImage("undecodable", f"its values of more than 8 bits cannot be read (Pillow's mode {turned.mode})")


def _alpha(header: Header, data: bytes) -> np.ndarray:
    """float64 (height, width), 0 transparent to 1 opaque."""
    import numpy as np
    from PIL import ImageOps

    try:
        with opened(header.format, data) as image:
            image.load()
            return np.asarray(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")) / 255
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds on mutated bytes)
        raise BadImage(_why(error), str(error) or type(error).__name__) from None


def decode_with_pillow(header: Header, data: bytes, channels: Channels) -> np.ndarray:
    """Decode with Pillow to uint8 (height, width) for one channel, (height, width, 3) for three, with EXIF rotation applied.

    Raises:
        BadImage: the image cannot be decoded.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with opened(header.format, data) as image:
            image.load()
            if image.mode in ("F", "I"):
                kind = "floating point" if image.mode == "F" else "32 bits deep"
                raise BadImage(
                    "undecodable", f"its pixels are {kind}, and preprocess.range does not say which values are black and white"
                )
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I;16"):
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            if turned.has_transparency_data:
                colour = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
            return np.array(turned.convert("L" if channels == 1 else "RGB"))
    except BadImage:
        raise
    except MemoryError:
        raise BadImage("too-large", f"{header.width}×{header.height} pixels do not fit in memory") from None
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds on mutated bytes)
        raise BadImage(_why(error), str(error) or type(error).__name__) from None


def opened(format_name: str, data: bytes) -> Any:
    """Open with Pillow's reader of one format: this avoids format detection, and warnings about sizes, which are checked
    here."""
    from PIL import (
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    readers: dict[str, Any] = {
        "AVIF": AvifImagePlugin.AvifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }
    if format_name == "HEIF":
        from pillow_heif.as_plugin import HeifImageFile

        return HeifImageFile(io.BytesIO(data))
    return readers[format_name](io.BytesIO(data))


def _why(error: Exception) -> str:
    signs = ("truncat", "unexpected end", "not enough", "end of file")
    return "truncated" if any(sign in str(error).lower() for sign in signs) else "undecodable"


@cache
def quiet_cv2() -> Any:
    """OpenCV, set to write nothing to standard error (libjpeg still does)."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _jpeg_header(data: bytes) -> Header:
    """Walk the segments to the frame header (ITU-T T.81, B.2.2). This takes a few microseconds; a library takes twenty."""
    position, turned = 2, False
    while True:
        # Stray bytes before a marker are skipped, as decoders do (libjpeg's `next_marker`).
        position = data.find(b"\xff", position)
        if position < 0:
            raise BadImage("truncated", "the file ends inside its header")
        while data[position] == 0xFF:
            position += 1
        marker, length = data[position], int.from_bytes(data[position + 1 : position + 3], "big")
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:  # these have no length
            position += 1
            continue
        if marker == 0xE1 and data[position + 3 : position + 9] == b"Exif\0\0":
            turned = turned or _exif_turns(data[position + 9 : position + 1 + length])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", data, position + 4)
            if turned:
                width, height = height, width
            return Header("JPEG", width, height, channels if channels in (1, 3, 4) else 3)
        elif marker in (0xDA, 0xD9):
            raise BadImage("undecodable", "there is no frame header before the pixels")
        if length < 2:
            raise BadImage("truncated" if position + 3 > len(data) else "undecodable", "a header segment has no length")
        position += 1 + length


def _png_header(data: bytes) -> Header:
    width, height, bits, kind = struct.unpack_from(">IIBB", data, 16)
    alpha, frames, turned = kind in (4, 6), 1, False
    position, before = 8, True  # all chunks that affect the display come before the pixels
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        body = position + 8
        if body + length > len(data):  # a decoder may allocate the gigabytes that a chunk claims to have
            raise BadImage("truncated", f"a chunk of {length:,} bytes is not all there")
        if name == b"IEND":
            break
        if name == b"IDAT":
            before = False
        elif before and name == b"tRNS":
            alpha = True
        elif before and name == b"eXIf":
            turned = _exif_turns(data[body : body + length])
        elif before and name == b"acTL":
            frames = min(2, max(1, int.from_bytes(data[body : body + 4], "big")))
        position = body + length + 4
    if turned:
        width, height = height, width
    return Header("PNG", width, height, 4 if alpha else 1 if kind == 0 else 3, frames, alpha, bits == 16)


def _webp_header(data: bytes) -> Header:
    """Read the canvas size (RFC 9649) directly: Pillow's reader would allocate memory for the canvas at once."""
    if len(data) < 30 or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise BadImage("truncated", "the file is shorter than it says")
    kind = data[12:16]
    if kind == b"VP8X":
        flags = data[20]
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        alpha, animated = bool(flags & 0x10), bool(flags & 0x02)
        if flags & 0x08 and (exif := data.rfind(b"EXIF")) >= 0 and _exif_turns(data[exif + 8 :]):
            width, height = height, width
        return Header("WEBP", width, height, 4 if alpha else 3, 2 if animated else 1, alpha)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        alpha = bool(bits >> 28 & 1)
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 4 if alpha else 3, alpha=alpha)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF, 3)
    raise BadImage("undecodable", "there is no picture in the file")


def _gif_header(data: bytes) -> Header:
    with opened("GIF", data) as image:
        width, height = image.size
        alpha = "transparency" in image.info
        channels = 4 if alpha else 1 if image.mode == "L" else 3
        return Header("GIF", width, height, channels, 2 if image.is_animated else 1, alpha)


def _tiff_header(data: bytes) -> Header:
    try:
        image_file = opened("TIFF", data)
    except SyntaxError as error:
        if "unknown pixel mode" not in str(error):
            raise
        advice = "save it with 8 or 16 bits a value, or grey with 32 bits"
        raise BadImage("undecodable", f"TIFFs with values of this kind are not read: {advice}") from None
    with image_file as image:
        width, height = image.size
        alpha = image.mode in ("LA", "RGBA", "La", "RGBa", "PA")
        grey = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
        channels = 4 if alpha or image.mode == "CMYK" else 1 if grey else 3
        if 50706 in image.tag_v2 or (330 in image.tag_v2 and image.tag_v2.get(254, 0) & 1):
            # DNGVersion; or a preview (NewSubfileType) of an image elsewhere in the file (SubIFDs)
            raise BadImage("raw", f"this format is not read: {NOT_READ['raw']}")
        bits = image.tag_v2.get(258, 1)  # BitsPerSample
        deep = max(bits if isinstance(bits, tuple) else (bits,)) > 8
        return Header("TIFF", width, height, channels, 2 if image.is_animated else 1, alpha, deep)


def _iso_media_brand(data: bytes) -> str | None:
    """`avif`, `heic` or `raw` (Canon's CR3) for a container by ISO/IEC 14496-12; None for any other file."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
        return "heic"
    return "raw" if b"crx " in brands else None


def _format_not_read(data: bytes) -> str | None:
    """The key in `NOT_READ` of a file's format, detected by its first bytes; None if it is none of these."""
    if data[128:132] == b"DICM":
        return "dicom"
    if data.startswith(b"II*\0") and data[8:10] == b"CR":
        return "raw"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in b" \t\r\n#" and len(data) > 8:
        return "pnm"
    starts = {
        b"\xff\x0a": "jpeg-xl", b"\0\0\0\x0cJXL ": "jpeg-xl", b"\0\0\0\x0cjP  ": "jpeg-2000", b"\xff\x4f\xff\x51": "jpeg-2000",
        b"IIRO": "raw", b"IIRS": "raw", b"MMOR": "raw", b"IIU\0": "raw", b"FUJIFILMCCD-RAW": "raw", b"8BPS": "psd", b"\x76\x2f\x31\x01": "openexr",
    }  # fmt: skip
    return next((name for start, name in starts.items() if data.startswith(start)), None)


@cache
def _reads_heif() -> bool:
    from importlib.util import find_spec

    return find_spec("pillow_heif") is not None


def _container_header(format_name: str, data: bytes) -> Header:
    with opened(format_name, data) as image:
        width, height = image.size
        if image.getexif().get(0x0112) in (5, 6, 7, 8):
            width, height = height, width
        alpha = image.mode in ("LA", "RGBA")
        channels = 4 if alpha else 1 if image.mode == "L" else 3
        return Header(format_name, width, height, channels, 2 if getattr(image, "n_frames", 1) > 1 else 1, alpha)


def _bmp_header(data: bytes) -> Header:
    with opened("BMP", data) as image:
        width, height = image.size
        return Header("BMP", width, height, 1 if image.mode in ("1", "L") else 3)


def _exif_turns(exif: bytes) -> bool:
    """True if the orientation swaps width and height."""
    return exif_orientation(exif) >= 5


def exif_orientation(exif: bytes) -> int:
    """The orientation that EXIF data gives, 1 to 8; 1 (as stored) if there is none. Damaged EXIF data is ignored."""
    from PIL import Image

    try:
        tags = Image.Exif()
        tags.load(b"Exif\0\0" + exif if not exif.startswith(b"Exif\0\0") else exif)
        found = tags.get(0x0112)
    except Exception:  # noqa: BLE001 (Pillow's parser raises many kinds on mutated tags)
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
