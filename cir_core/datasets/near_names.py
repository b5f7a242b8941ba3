"""Which image a user means by a name that is not quite an image's."""

from collections.abc import Iterable
from unicodedata import normalize

from cir_core.datasets.ids import folded
from cir_core.datasets.listing_notes import first_few
from cir_core.picture_files import ending, is_unread
from cir_core.types import ImageId


class ImageNames:
    """The images of a folder, asked for by what tables call them.

    Unicode has several forms of one text: macOS writes é into names as two characters, keyboards
    write one. No reader can tell them apart, so a name in another form means the image, when there
    is no other that it could mean.
    """

    def __init__(self, images: Iterable[ImageId]) -> None:
        self.images = dict.fromkeys(images)
        self._by_form: dict[str, list[ImageId]] = {}
        self._by_letters: dict[str, ImageId] = {}
        for image in self.images:
            self._by_form.setdefault(normalize("NFC", image), []).append(image)
            self._by_letters.setdefault(folded(image), image)

    def meant(self, name: str) -> ImageId:
        """The image's own id; the name itself where no image is meant for certain."""
        if name in self.images:
            return ImageId(name)
        alike = self._by_form.get(normalize("NFC", name), ())
        return alike[0] if len(alike) == 1 else ImageId(name)

    def note(self, names: Iterable[str]) -> tuple[str, ...]:
        """Which of the names mean an image in another Unicode form: a line, or none."""
        others = {name: self.meant(name) for name in names if self.meant(name) != name}
        if not others:
            return ()
        told = [f"{name!a} is {image!a}" for name, image in others.items()]
        return (
            f"{len(others)} ids are written in another Unicode form than the files' names, which "
            f"count: {first_few(told)}",
        )

    def fault(self, name: str) -> str:
        """Why no image has this name though it is near to one, or of a kind that is not read;
        empty when there is such an image, or none like it."""
        if self.meant(name) in self.images:
            return ""
        alike = self._by_form.get(normalize("NFC", name))
        if alike:
            return f"has another Unicode form than each of {', '.join(map(ascii, alike))}"
        plain = name.strip().replace("\\", "/")
        other = self.meant(plain)
        if other in self.images:
            why = "is written with backslashes" if "\\" in name else "begins or ends with a space"
            return f"{why}; the image is {other!r}"
        if folded(plain) in self._by_letters:
            image = self._by_letters[folded(plain)]
            return f"differs in upper and lower case from the image {image!r}"
        kind = f"is of a kind that is not read ({ending(plain)}); save it as JPEG or PNG"
        return kind if is_unread(plain) else ""
