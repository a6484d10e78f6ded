"""names: file names in any usual encoding become the text that was meant, and labels have one form."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.names import UNIX, WINDOWS, Decoder, alike, guess_encoding, markdown, near, tidy


@pytest.mark.parametrize(
    ("encoding", "labels"),
    [
        ("gbk", ["猫", "狗", "马"]),
        ("gbk", ["苹果", "健康", "锈病"]),
        ("gbk", ["良品", "不良品", "划痕"]),
        ("gbk", ["正常", "肺炎"]),
        ("shift_jis", ["猫", "犬", "馬"]),
        ("shift_jis", ["良品", "不良品", "キズ"]),
        ("shift_jis", ["リンゴ", "みかん"]),
        ("big5", ["貓", "狗", "馬"]),
        ("big5", ["正常", "瑕疵", "刮痕"]),
        ("euc_kr", ["고양이", "개", "말"]),
        ("euc_kr", ["정상", "불량"]),
        ("cp437", ["Tür", "Fuß"]),
        ("cp852", ["łódź", "zdrowy"]),
        ("cp866", ["кошка", "собака"]),
        ("cp1251", ["Кошки", "собаки"]),
        ("cp1253", ["γάτα", "σκύλος"]),
        ("utf-8", ["größe", "日本", "кошка"]),
    ],
)
@pytest.mark.parametrize("usual", [WINDOWS, UNIX])
def test_a_few_short_names_show_their_encoding(encoding: str, labels: list[str], usual: tuple[str, ...]) -> None:
    names = [f"pets/{label}/{number}.png".encode(encoding) for label in labels for number in range(3)]
    decode = Decoder(lambda: names, None, usual)
    assert [decode(name) for name in names] == [f"pets/{label}/{number}.png" for label in labels for number in range(3)]
    assert (decode.assumed is None) == (encoding == "utf-8")


@pytest.mark.parametrize(("usual", "encoding"), [(WINDOWS, "cp850"), (UNIX, "latin-1")])
def test_western_names_are_read_as_the_system_of_the_source_writes_them(usual: tuple[str, ...], encoding: str) -> None:
    names = [name.encode(encoding) for name in ("gut", "Riß", "Übermaß", "pêche")]
    assert [name.decode(guess_encoding(names, usual)) for name in names] == ["gut", "Riß", "Übermaß", "pêche"]


def test_the_user_has_the_last_word_on_the_encoding() -> None:
    decode = Decoder(list, "cp1252", WINDOWS)
    assert decode("Größe".encode("cp1252")) == "Größe" and decode.assumed is None


@given(st.lists(st.text(st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1), min_size=1))
def test_names_in_utf8_are_never_taken_for_anything_else(names: list[str]) -> None:
    decode = Decoder(lambda: [name.encode() for name in names], None, UNIX)
    assert [decode(name.encode()) for name in names] == names and decode.assumed is None


@given(st.lists(st.binary(max_size=20), min_size=1), st.sampled_from([None, "gbk", "shift_jis", "cp437"]))
def test_any_bytes_become_text(names: list[bytes], encoding: str | None) -> None:
    decode = Decoder(lambda: names, encoding, WINDOWS)
    for name in names:
        decode(name).encode()


@pytest.mark.parametrize("label", ["café", " café", "café\t", unicodedata.normalize("NFD", "café")])
def test_forms_that_look_the_same_are_one_label(label: str) -> None:
    assert tidy(label) == "café"


def test_labels_that_differ_in_case_spacing_or_width_only_are_alike() -> None:
    assert alike("Cat") == alike("cat") == alike("ｃａｔ") and alike("no_dog") == alike("No-Dog") == alike("no dog")
    assert alike("cat") != alike("cats") and alike("+") != alike("-")


def test_an_unknown_label_is_near_the_one_that_was_meant() -> None:
    labels = ["cat", "dog", "Black rot"]
    assert [near(label, labels) for label in ("Cat", "dogs", "black_rot", "wolf", "")] == [
        "cat",
        "dog",
        "Black rot",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("a|b", r"a\|b"),
        ("*x*_y_", r"\*x\*\_y\_"),
        ("<script>", "&lt;script&gt;"),
        ("[a](b)", r"\[a\](b)"),
        ("a\n# b", "a # b"),
        ("$5", r"\$5"),
    ],
)
def test_a_label_in_markdown_is_shown_as_it_stands(label: str, shown: str) -> None:
    assert markdown(label) == shown
