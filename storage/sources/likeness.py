"""What lies in a picture's place, when it is no picture that can be read."""

FIRST_BYTES = (
    (b"version https://git-lfs", "a Git LFS pointer: the picture itself was not fetched"),
    (b"<!doctype html", "a web page, saved in its place"),
    (b"<html", "a web page, saved in its place"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file, perhaps an SVG drawing"),
    (b"%pdf", "a PDF document"),
    (b"8bps", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cjxl ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjp  ", "a JPEG 2000 picture"),
)
"""With letters in lower case."""

BRANDS = dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "a HEIC picture, as telephones make them: save it as JPEG",
) | dict.fromkeys(
    (b"avif", b"avis"), "an AVIF picture that is damaged, or that Pillow here was built without"
)
"""After the word ``ftyp`` of such files."""


def likeness(content: bytes) -> str:
    """Empty when it is not known."""
    if content[4:8] == b"ftyp":
        return BRANDS.get(content[8:12], "")
    start = content[:200].lstrip().lower()
    return next((told for first, told in FIRST_BYTES if start.startswith(first)), "")
