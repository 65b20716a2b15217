"""A small but real tokenizer of every kind that text encoders come with, built in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
    trainers,
)
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Sequence, Split
from transformers import (
    BertTokenizer,
    ByT5Tokenizer,
    CLIPTokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    Siglip2Tokenizer,
    SiglipTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

# Some of its words end up whole, some in pieces; letters that are not in it are unknown or bytes.
CORPUS = [
    "a red circle on the table, isn't it well made? A blue hat: the cafe is naïve and open.",
    "l’été très élevé café naïve l’été the red table the blue hat a well made circle",
    "красный круг на столе, красные столы κόκκινος κύκλος κόκκινος",
    "دائرة حمراء مُحَمَّد كِتَاب می‌خواهم کتاب‌ها دائرة حمراء",
    "नमस्ते दुनिया हिन्दी की किताबें नमस्ते हिन्दी",
    "สวัสดีครับ ภาษาไทย สวัสดี",
    "東京都の東京タワー 東京は大きい 漂亮的模型 红色的圆 红色的 你好，世界",
    "안녕하세요 빨간 원 빨간 세계",
    "👩‍💻 👍🏽 🙂🙂 🇩🇪 ❤️ 3D 1️⃣ 🙂 👍",
]
BYTES = sorted(ByteLevel.alphabet())
# How tokenizers like Qwen's divide a text: a mark goes with the letters that follow it.
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def numbered(*pieces: str) -> dict[str, int]:
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def trained(model: Any, trainer: Any, normalizer: Any, pre_tokenizer: Any) -> Any:
    """The vocabulary of a model, and its merges if it has any."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.train_from_iterator(CORPUS, trainer)
    fields = json.loads(tokenizer.to_str())["model"]
    return list(fields["vocab"]), [tuple(merge) for merge in fields.get("merges", ())]


@cache
def byte_pieces(suffix: str = "") -> Any:
    trainer = trainers.BpeTrainer(
        vocab_size=450, initial_alphabet=BYTES, end_of_word_suffix=suffix, show_progress=False
    )
    model = models.BPE(end_of_word_suffix=suffix)
    pieces, merges = trained(model, trainer, normalizers.Lowercase(), ByteLevel(False))
    return [*BYTES, *(byte + suffix for byte in BYTES), *pieces], merges


def clip() -> Any:
    pieces, merges = byte_pieces("</w>")
    return CLIPTokenizer(numbered(*pieces, "<|startoftext|>", "<|endoftext|>"), merges)


def roberta(**options: Any) -> Any:
    pieces, merges = byte_pieces()
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return RobertaTokenizer(numbered(*special, *pieces), merges, **options)


def byte_level(pre_tokenizer: Any, first: str | None, last: str, *added: str) -> Any:
    """A byte-level tokenizer as its file defines it: nothing trims the offsets."""
    pieces, merges = byte_pieces()
    special = [first, last] if first else [last]
    vocabulary = numbered(*special, "<pad>", *pieces)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{first} $A {last}" if first else f"$A {last}",
        special_tokens=[(piece, vocabulary[piece]) for piece in special],
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=first, sep_token=last, pad_token="<pad>"
    )


def modernbert() -> Any:
    """Runs of spaces are tokens of their own."""
    return byte_level(ByteLevel(False), "[CLS]", "[SEP]", "   ", "  ")


def qwen() -> Any:
    split = Split(Regex(QWEN), "isolated")
    return byte_level(Sequence([split, ByteLevel(False, use_regex=False)]), None, "<|endoftext|>")


@cache
def word_pieces(lowercase: bool) -> list[str]:
    return trained(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=400, show_progress=False),
        normalizers.BertNormalizer(lowercase=lowercase),
        BertPreTokenizer(),
    )[0]


def bert(lowercase: bool) -> Any:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    return BertTokenizer(numbered(*special, *word_pieces(lowercase)), do_lower_case=lowercase)


def mpnet() -> Any:
    special = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
    return MPNetTokenizer(numbered(*special, *word_pieces(True)))


@cache
def sentence_piece(kind: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3),
        model_writer=model,
        model_type=kind,
        vocab_size=500 if kind == "bpe" else 260,
        hard_vocab_limit=False,
        byte_fallback=kind == "bpe",
        normalization_rule_name="identity" if kind == "bpe" else "nmt_nfkc",
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def unigram(tokenizer: type[Any], *special: str) -> Any:
    model = sentencepiece_model_pb2.ModelProto.FromString(sentence_piece("unigram"))
    pieces = [(piece.piece, piece.score) for piece in model.pieces[3:]]
    return tokenizer(
        [*((piece, 0.0) for piece in special), *pieces],
        _spm_precompiled_charsmap=model.normalizer_spec.precompiled_charsmap,
    )


def byte_fallback(tokenizer: type[Any], **options: Any) -> Any:
    model = sentencepiece_model_pb2.ModelProto.FromString(sentence_piece("bpe"))
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    vocabulary = numbered(*special, *(piece.piece for piece in model.pieces))
    merges = [
        (piece[:cut], piece[cut:])
        for piece in vocabulary
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return tokenizer(vocabulary, merges, **names, **options)


FAST: dict[str, Callable[[], Any]] = {
    "CLIP": clip,
    "RoBERTa": roberta,
    "RoBERTa, prefix space": lambda: roberta(add_prefix_space=True),
    "RoBERTa, whole offsets": lambda: roberta(trim_offsets=False),
    "RoBERTa, prefix space and whole offsets": lambda: roberta(
        add_prefix_space=True, trim_offsets=False
    ),
    "ModernBERT": modernbert,
    "Qwen": qwen,
    "BERT": lambda: bert(lowercase=True),
    "BERT, cased": lambda: bert(lowercase=False),
    "MPNet": mpnet,
    "XLM-R": lambda: unigram(XLMRobertaTokenizer, "<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "T5": lambda: unigram(T5Tokenizer, "<pad>", "</s>", "<unk>"),
    "Gemma": lambda: byte_fallback(GemmaTokenizer),
    "SigLIP 2": lambda: byte_fallback(Siglip2Tokenizer, add_bos_token=False, add_eos_token=True),
    "Llama": lambda: byte_fallback(LlamaTokenizer, unk_token="<unk>"),
}


def byt5() -> Any:
    return ByT5Tokenizer()


def siglip(directory: Any) -> Any:
    file = directory / "spiece.model"
    file.write_bytes(sentence_piece("unigram"))
    return SiglipTokenizer(str(file))
