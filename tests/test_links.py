"""The check of links inside a built site finds those that lead nowhere."""

from __future__ import annotations

from docs.check_links import broken_links


def test_broken_links_are_named_with_their_page(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="#top">1</a><a href="sub/b.html#part">2</a>'
        '<img src="picture.png"><a href="https://example.org/x">3</a>'
    )
    (tmp_path / "sub" / "b.html").write_text('<p id="part"></p><a href="../a.html">back</a>')
    assert broken_links(tmp_path) == []

    (tmp_path / "c.html").write_text(
        '<a href="gone.html">1</a><a href="a.html#nowhere">2</a><img src="sub/picture.png">'
    )
    assert broken_links(tmp_path) == [
        "c.html: gone.html",
        "c.html: a.html#nowhere",
        "c.html: sub/picture.png",
    ]
