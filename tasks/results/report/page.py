"""A self-contained HTML page: what it needs is inlined, and its policy allows nothing else."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tasks.results.wording import signed

ROOM = "tasks.results.report"
FRAME = "page.html.j2"

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FunctionLoader(lambda name: _text(f"templates/{name}")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def with_code(text: str) -> Markup:
    """What stands between grave accents, as code. No line begins with a percent sign."""
    parts = text.replace(" %", "\N{NO-BREAK SPACE}%").split("`")
    if len(parts) % 2 == 0:  # one without its other
        return Markup.escape("`".join(parts))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )


_ENVIRONMENT.filters |= {"with_code": with_code, "signed": signed}


class Page:
    """In the making. Templates inline the room's own files by ``style`` and ``script``, and values
    for scripts by ``data``; the content security policy then allows those very scripts by their
    hashes, styles, and pictures that are in the page, or lie beside it if it ``has_folder``, and
    nothing from anywhere else."""

    def __init__(self, *, has_folder: bool = False) -> None:
        self._hashes: dict[str, None] = {}
        self._pictures = "data: 'self'" if has_folder else "data:"

    def render(
        self, body: str, content: Mapping[str, Any], *, title: str, styles: Sequence[str]
    ) -> str:
        """The frame around the template ``body``, which is rendered first: the frame's policy
        names its scripts."""
        inlining = {
            "script": self.script,
            "style": self.style,
            "data": self.data,
            "text": _text,
        }
        inner = Markup(_ENVIRONMENT.get_template(body).render(**content, **inlining))
        frame = _ENVIRONMENT.get_template(FRAME)
        return frame.render(**inlining, body=inner, policy=self.policy, title=title, styles=styles)

    def policy(self) -> str:
        """As the scripts so far want it."""
        scripts = " ".join(f"'sha256-{digest}'" for digest in self._hashes) or "'none'"
        return (
            f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src {self._pictures}; "
            f"style-src 'unsafe-inline'; script-src {scripts}"
        )

    def script(self, name: str) -> Markup:
        """A file of the room, to be run where it stands. Raises ValueError for one that would end
        its own element."""
        text = _text(name)
        if "</script" in text.lower() or "<!--" in text:
            raise ValueError(f"{name} cannot stand inside of a page")
        digest = hashlib.sha256(text.encode()).digest()
        self._hashes[base64.b64encode(digest).decode()] = None
        return Markup(f"<script>{text}</script>")

    @staticmethod
    def style(name: str) -> Markup:
        return Markup(f"<style>\n{_text(name)}</style>")

    @staticmethod
    def data(name: str, value: Any) -> Markup:
        """A value for scripts: ``JSON.parse(document.getElementById(name).textContent)``. It may
        hold any text: none ends the element."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text = text.replace("<", "\\u003c")
        return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def _text(name: str) -> str:
    return (resources.files(ROOM) / name).read_text(encoding="utf-8")
