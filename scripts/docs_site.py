"""What the site has besides docs/: the README as its first page, and the pages that stand elsewhere in the tree.

Called by mkdocs (see mkdocs.yml). Their links are turned to where the pages are on the site.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: Page on the site: file of the tree.
ELSEWHERE = {
    "index.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "LICENSE.md": "LICENSE",
    "bench/results.md": "bench/results.md",
    "bench/peers.md": "bench/peers.md",
}
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)([^)]*)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turns links between files of the tree into links between pages; what is no page stays a plain text."""
    source = Path(ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    depth = "../" * page.file.src_uri.count("/")

    def turned(link: re.Match[str]) -> str:
        text, path, rest = link.groups()
        target = (ROOT / source.parent / path).resolve().relative_to(ROOT).as_posix()
        on_site = {tree: site for site, tree in ELSEWHERE.items()}.get(target, target.removeprefix("docs/"))
        is_page = on_site != target or files.get_file_from_path(on_site) is not None
        return f"[{text}]({depth}{on_site}{rest})" if is_page else text

    return _LINK.sub(turned, markdown)
