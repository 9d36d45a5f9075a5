"""`decoded`: every form that people send, the limits, and what hostile files do."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile, ImageOps
from transformers.image_transforms import convert_to_rgb

from iei.errors import EmptyInput, InvalidInput
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import FORMATS, DecodeLimits, decoded
from iei.inputs.geometry import to_pixels
from iei.models.spec import Geometry
from tests.inputs.decoding import decode_image
from tests.pictures import encode, encoded, jpeg, photo, png

# Pillow's warnings about odd files are ignored in a process that serves, and errors in a process that tests.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LIMITS = DecodeLimits(max_pixels=64_000_000, max_side=65_535, budget=PixelBudget(128_000_000))
FAST = DecodeLimits(max_pixels=64_000_000, max_side=65_535, budget=PixelBudget(128_000_000), fast=True)


def array(image: Image.Image) -> npt.NDArray[np.int32]:
    return np.asarray(image).astype(np.int32)


def small_limits(max_pixels: int) -> DecodeLimits:
    return DecodeLimits(max_pixels=max_pixels, max_side=65_535, budget=PixelBudget(10 * max_pixels))


# What it looks like


@pytest.mark.parametrize("name", encoded())
def test_every_form_becomes_rgb_of_the_same_photo(name: str) -> None:
    image = decode_image(encoded()[name], LIMITS)
    assert image.mode == "RGB"
    expected = photo(96, 64)
    if "turned" in name:
        expected = expected.transpose(Image.Transpose.ROTATE_270)
    if any(word in name for word in ("grey", "16-bit", "1-bit", "float")):
        expected = expected.convert("L").convert("RGB")
    difference = np.abs(array(image) - array(expected))
    if "alpha" in name or "transparent" in name:
        white = 255 - array(expected)
        assert (array(image) >= array(expected) - 24).all()  # composited over white, a picture can only get lighter
        assert 0 < difference.mean() < white.mean()
    elif "1-bit" in name:
        assert abs(array(image).mean() - array(expected).mean()) < 2
    else:
        assert difference.mean() < 6


@pytest.mark.parametrize("name", [name for name in encoded() if not any(w in name for w in ("16-bit", "float", "lab"))])
def test_colours_equal_those_of_transformers(name: str) -> None:
    with Image.open(io.BytesIO(encoded()[name])) as image:
        expected = convert_to_rgb(image, return_numpy=True)
    if "turned" in name:
        expected = np.rot90(expected, -1)
    assert np.array_equal(array(decode_image(encoded()[name], LIMITS)), expected)


def test_transparent_is_white_and_opaque_is_itself() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 255))
    for format in ("PNG", "TIFF"):
        assert array(decode_image(encode(image, format), LIMITS)).tolist() == [[[255] * 3, [200, 0, 0]]]


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_greys_are_scaled_not_clipped(mode: str) -> None:
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    image = Image.frombytes(mode, (6, 1), levels.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    for format in ("PNG", "TIFF") if mode == "I;16" else ("TIFF",):
        assert array(decode_image(encode(image, format), LIMITS))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 256, 65535], [0, 1, 255]),
        ([-1000, 0, 1000], [0, 128, 255]),
        ([0, 50_000, 100_000], [0, 128, 255]),
        ([7, 7, 7], [7, 7, 7]),
        ([-7, -7, -7], [0, 0, 0]),
    ],
)
def test_32_bit_greys_are_read_in_the_smallest_range_that_holds_them(levels: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([levels], dtype=np.int32))
    assert array(decode_image(encode(image, "TIFF"), LIMITS))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255]),
    ],
)
def test_float_greys_are_read_in_the_smallest_range_that_holds_them(levels: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([levels], dtype=np.float32))
    assert array(decode_image(encode(image, "TIFF"), LIMITS))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo(40, 20)
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(image, format, exif=exif, **options)
        with Image.open(io.BytesIO(data)) as file:
            expected = ImageOps.exif_transpose(file).convert("RGB")
        assert np.array_equal(array(decode_image(data, LIMITS)), array(expected)), format


def test_broken_exif_leaves_the_picture_as_it_lies() -> None:
    data = encode(photo(40, 20), "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 30)
    assert decode_image(data, LIMITS).size == (40, 20)


@pytest.mark.parametrize("name", ["gif animated", "webp animated", "apng", "mpo"])
def test_the_first_frame_counts(name: str) -> None:
    with Image.open(io.BytesIO(encoded()[name])) as image:
        assert getattr(image, "n_frames", 1) > 1
    difference = np.abs(array(decode_image(encoded()[name], LIMITS)) - array(photo(96, 64)))
    assert difference.mean() < 6


def test_embedded_colour_profiles_are_not_applied() -> None:
    data = encode(photo(40, 20), "PNG", icc_profile=b"not a profile at all")
    assert np.array_equal(array(decode_image(data, LIMITS)), array(photo(40, 20)))


# Limits


def test_a_picture_over_the_limit_is_refused_from_its_header() -> None:
    limits = small_limits(100 * 100)
    assert decode_image(png(100, 100), limits).size == (100, 100)
    with pytest.raises(InvalidInput, match=r"^101×100 is over the limit of 0\.01 MP \(IEI_MAX_IMAGE_PIXELS\)$"):
        decode_image(png(101, 100), limits)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes(1000))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gif_header(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x08\x01\x00\x00;"
    )


def bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 8, 0, 0, 54) + info + bytes(8)


def tiff_header(width: int, height: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def webp_header(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    image = encode(photo(16, 16), "WEBP")[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(image)) + bytes(6) + b"\x0f\0\0\x0f\0\0" + bytes(4) + image
    body = b"WEBP" + extended + animation + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("header", [png_header, gif_header, bmp_header, tiff_header, webp_header])
@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_header_that_promises_too_much_is_refused(header: Callable[[int, int], bytes], side: int) -> None:
    with pytest.raises(InvalidInput, match=r"over the limit of 64 MP \(IEI_MAX_IMAGE_PIXELS\)"):
        decode_image(header(side, side), LIMITS)
    assert LIMITS.budget.held == 0


def test_the_headers_are_sound_but_for_their_size() -> None:
    for header in (png_header, gif_header, bmp_header, tiff_header, webp_header):
        with Image.open(io.BytesIO(header(300, 200))) as image:
            assert image.size == (300, 200)


def test_a_limit_above_pillows_own_is_honoured() -> None:
    image = Image.new("1", (20_000, 10_000))
    data = encode(image, "PNG")
    with pytest.raises(InvalidInput, match="20000×10000 is over"):
        decode_image(data, LIMITS)
    with pytest.raises(InvalidInput, match="20000×10000 is over the limit of 199"):
        decode_image(data, DecodeLimits(199_000_000, 65_535, PixelBudget(1)))
    # Passes the size check and fails later: the pixels themselves would cost this test a gigabyte.
    with pytest.raises(InvalidInput, match="cut short"):
        decode_image(data[:200], DecodeLimits(200_000_000, 65_535, PixelBudget(1)))


def text_bomb() -> bytes:
    """A PNG with 100 MB of text in 100 KB."""
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    data = png()
    return data[:33] + chunk + data[33:]


def test_a_bomb_of_text_is_not_unpacked() -> None:
    with pytest.raises(InvalidInput, match="can't be decoded"):
        decode_image(text_bomb(), LIMITS)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encode(photo(500, 375), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidInput, match=r"is a JPEG of 1\d\d\d scans, over the limit of 200"):
        decode_image(data[:-2] + 1000 * scan + data[-2:], LIMITS)


def test_the_budget_is_held_while_a_picture_is_in_hand_and_no_longer() -> None:
    limits = small_limits(10_000)
    with decoded(png(64, 48), limits) as image:
        assert image.size == (64, 48)
        assert limits.budget.held == 64 * 48
    assert limits.budget.held == 0
    decode_image(png(64, 48), limits)
    assert limits.budget.held == 0
    with pytest.raises(InvalidInput):
        decode_image(png(64, 48)[:-100], limits)
    assert limits.budget.held == 0


def test_pictures_wait_for_each_other_when_the_budget_is_full() -> None:
    limits = DecodeLimits(10_000, 65_535, PixelBudget(64 * 48))
    done = threading.Event()

    def decode() -> None:
        decode_image(png(64, 48), limits)
        done.set()

    with decoded(png(10, 10), limits):
        thread = threading.Thread(target=decode)
        thread.start()
        assert not done.wait(0.05)
    assert done.wait(10)
    thread.join()


# Hostile and broken


@pytest.mark.parametrize(
    "data",
    [b"a cat", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"%!PS-Adobe", bytes(100), b"\xff", b"RIFF"],
)
def test_what_is_no_image_is_refused_with_the_formats_that_are(data: bytes) -> None:
    with pytest.raises(
        InvalidInput, match=r"is not an image in a known format \(JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF\)"
    ):
        decode_image(data, LIMITS)


@pytest.mark.parametrize("format", ["PPM", "ICO", "PCX", "TGA", "EPS", "JPEG2000", "SGI"])
def test_formats_outside_the_allow_list_are_refused(format: str) -> None:
    assert format not in FORMATS
    with pytest.raises(InvalidInput, match="known format"):
        decode_image(encode(photo(32, 32), format), LIMITS)


def test_nothing_is_empty() -> None:
    with pytest.raises(EmptyInput, match="is empty"):
        decode_image(b"", LIMITS)


@pytest.mark.parametrize("name", encoded())
def test_truncated_files_of_every_format_are_refused(name: str) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    data = encoded()[name]
    cuts = {len(data) * part // 10 for part in range(1, 7)} | {17, 30, 60}
    refused = 0
    for cut in cuts:
        try:
            decode_image(data[:cut], LIMITS)
        except InvalidInput:
            refused += 1
    # A file of several frames may lose the later ones; a cut in its first frame is never taken.
    frames = 3 if "anim" in name or name in ("apng", "mpo") else 1
    assert refused >= len(cuts) // frames


# Fast


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(2000, 1344, 2), (2000, 1343, 1), (2688, 4000, 4), (5376, 5376, 8), (4000, 500, 1)]
)
def test_fast_decoding_shrinks_a_jpeg_to_no_less_than_thrice_its_target(width: int, height: int, scale: int) -> None:
    data = jpeg(width, height)
    assert decode_image(data, FAST, target=(224, 224)).size == (width // scale, height // scale)
    assert decode_image(data, LIMITS, target=(224, 224)).size == (width, height)
    assert decode_image(data, FAST).size == (width, height)


@pytest.mark.parametrize("what", ["photo", "lines"])
def test_fast_pixels_are_close_to_the_exact_ones(what: str) -> None:
    """Lines of 5 pixels are all gone in the small picture; reduced too cheaply, they would leave broad stripes."""
    geometry = Geometry(resize="exact", height=224, width=224, resample=2)
    stripes = np.tile(np.arange(4000) // 5 % 2 * 255, (3000, 1)).astype(np.uint8)
    data = jpeg(4000, 3000) if what == "photo" else encode(Image.fromarray(stripes), "JPEG", quality=90)
    reduced = decode_image(data, FAST, target=geometry.resized)
    assert reduced.size == (1000, 750)
    fast, exact = to_pixels(reduced, geometry, fast=True), to_pixels(decode_image(data, LIMITS), geometry)
    difference = np.abs(fast.astype(int) - exact)
    assert 0 < difference.mean() < 1
    assert difference.max() <= 3


def test_a_picture_that_is_cropped_without_a_resize_keeps_its_size() -> None:
    geometry = Geometry(resize="none", height=224, width=224, resample=3, crop=(224, 224))
    assert decode_image(jpeg(2000, 1500), FAST, target=geometry.resized).size == (2000, 1500)


# The process


@pytest.mark.server
@pytest.mark.parametrize(("mode", "most"), [("RGB", 5), ("RGBA", 10), ("P", 7), ("I;16", 8), ("F", 10)])
def test_a_picture_takes_little_memory_on_its_way(mode: str, most: int) -> None:
    """Bytes a pixel, of 16 megapixels, as the system counts them for a process of its own."""
    program = (
        "import sys; from pathlib import Path\n"
        "from iei.inputs import decode; from iei.inputs.budget import PixelBudget\n"
        "data, limits = sys.stdin.buffer.read(), decode.DecodeLimits(10**8, 10**5, PixelBudget(10**8))\n"
        "taken = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = taken()\n"
        "with decode.decoded(data, limits) as image: width, height = image.size\n"
        "print((taken() - before) * 1024 / (width * height))"
    )
    options = {"transparency": 0} if mode == "P" else {}
    file = encode(Image.new(mode, (4000, 4000)), "TIFF" if mode == "F" else "PNG", **options)
    done = subprocess.run([sys.executable, "-c", program], input=file, capture_output=True, timeout=60)
    assert float(done.stdout) < most, done.stderr


@pytest.mark.server
def test_a_worker_that_decodes_loads_no_torch_and_no_other_parser() -> None:
    program = (
        "import sys; from iei.inputs import decode, geometry, sources; from iei.inputs.budget import PixelBudget\n"
        "limits = decode.DecodeLimits(10**6, 10**5, PixelBudget(10**6))\n"
        "with decode.decoded(sys.stdin.buffer.read(), limits) as image: size = image.size\n"
        "print(size, [name for name in sys.modules if name in ('torch', 'transformers', 'PIL.EpsImagePlugin')])"
    )
    done = subprocess.run([sys.executable, "-c", program], input=encoded()["avif"], capture_output=True, timeout=60)
    assert done.stdout.split(b"\n")[0] == b"(96, 64) []", done.stderr
