"""Text to token ids and back: Llama 3's tokenizer from either of its files, and sentencepiece's.

    base.py  decoding.py     encode and spans, decode and stream: what all tokenizers do
    llama3.py                the ranks of Llama 3, run by tiktoken; read `llama_ref.bpe` beside it
    special_tokens.py        256 ids and their two published namings
    cutting.py               where Meta's code cuts a long text
    rank_file.py             Meta's tokenizer.model
    tokenizer_json.py        Hugging Face's tokenizer.json, with byte_alphabet.py, merge_list.py
                             and post_processor.py for its parts
    sentencepiece_model.py   Llama 2's tokenizer.model
    streaming.py             text out of ids that arrive one at a time
    load.py                  which file of a folder counts, and what kind it is

The engines are imported when the first tokenizer that needs one is loaded.
"""

from llama_ref.tokenizer.base import Span, Tokenizer
from llama_ref.tokenizer.llama3 import Llama3Tokenizer
from llama_ref.tokenizer.load import TOKENIZER_FILES, load_tokenizer
from llama_ref.tokenizer.sentencepiece_model import SentencePieceTokenizer
from llama_ref.tokenizer.streaming import StreamDecoder

__all__ = [
    "TOKENIZER_FILES",
    "Llama3Tokenizer",
    "SentencePieceTokenizer",
    "Span",
    "StreamDecoder",
    "Tokenizer",
    "load_tokenizer",
]
