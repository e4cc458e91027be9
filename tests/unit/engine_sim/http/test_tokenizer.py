"""The pretended tokenizer: what gateway and engine must agree on."""

import pytest

from lowtide.engine_sim.http.tokenizer import (
    IMAGE_TOKENS,
    count_chat,
    count_text,
    filler,
    pieces_of,
    tokens_of,
    tokens_of_chat,
)


@pytest.mark.parametrize("text", ["", "a", "abcd", "abcde", "schöne Grüße", "潮は一日に二度引いて"])
def test_four_bytes_are_a_token(text: str) -> None:
    assert len(tokens_of(text)) == count_text(text) == -(-len(text.encode()) // 4)


def test_texts_share_the_tokens_of_what_they_share() -> None:
    one, two = tokens_of("the same beginning, one end"), tokens_of("the same beginning, another")
    assert one[:5] == two[:5]
    assert one != two


def test_ids_do_not_depend_on_the_process() -> None:
    assert tokens_of("low tide") == [26667, 44410]


def test_chats_share_the_messages_that_they_share() -> None:
    system = {"role": "system", "content": "You count fish. " * 20}
    one = tokens_of_chat([system, {"role": "user", "content": "How many?"}])
    two = tokens_of_chat([system, {"role": "user", "content": "Which ones?"}])
    assert pieces_of(one)[:5] == pieces_of(two)[:5]
    assert count_chat([system, {"role": "user", "content": "How many?"}]) == len(one)


def test_a_content_of_parts_counts_its_texts_and_its_images() -> None:
    text = [{"role": "user", "content": "what is this"}]
    part = {"type": "text", "text": "what is this"}
    assert count_chat([{"role": "user", "content": [part]}]) == count_chat(text)
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    with_image = [{"role": "user", "content": [part, image]}]
    assert count_chat(with_image) == count_chat(text) + IMAGE_TOKENS


def test_tools_are_part_of_the_prompt() -> None:
    chat = [{"role": "user", "content": "weather?"}]
    assert count_chat(chat, [{"type": "function"}]) > count_chat(chat)


def test_filler_has_its_number_of_tokens_wherever_it_is_cut() -> None:
    text = filler(100, seed=7)
    assert count_text(text) == 100
    assert filler(60, seed=7) == text[:240]
    assert filler(100, seed=8) != text


def test_pieces_are_blocks_and_a_rest() -> None:
    pieces = pieces_of(list(range(40)))
    assert [count for _, count in pieces] == [16, 16, 8]
    assert pieces_of(list(range(32))) == pieces[:2]
