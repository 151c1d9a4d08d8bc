"""Ids of Llama 3 by tiktoken 0.14.0; written by make_golden_ids.py."""

GOLDEN_IDS = [
    # the blank belongs to the word after it
    (
        "hello world!",
        [
            15339,  # "hello"
            1917,  # " world"
            0,  # "!"
        ],
    ),
    # from the tests of Meta's code
    (
        "This is a test sentence.",
        [
            2028,  # "This"
            374,  # " is"
            264,  # " a"
            1296,  # " test"
            11914,  # " sentence"
            13,  # "."
        ],
    ),
    # contractions in either case; ſ is an s to a rule that ignores case
    (
        "don't DON'T we'LL it'\u017f",
        [
            15357,  # "don"
            956,  # "'t"
            45373,  # " DON"
            17773,  # "'T"
            584,  # " we"
            6,  # "'"
            4178,  # "LL"
            433,  # " it"
            6,  # "'"
            129,  # b'\xc5'
            123,  # b'\xbf'
        ],
    ),
    # up to three digits from the left, whatever the script
    (
        "1234567 \u0663\u0664\u0665\u0666 \xbd\u2167\xb2",
        [
            4513,  # "123"
            10961,  # "456"
            22,  # "7"
            220,  # " "
            117413,  # "٣"
            124079,  # "٤"
            124043,  # "٥"
            149,  # b'\xd9'
            99,  # b'\xa6'
            220,  # " "
            27154,  # "½"
            71567,  # b'\xe2\x85'
            100,  # b'\xa7'
            30556,  # "²"
        ],
    ),
    # blanks up to the last line end, then all blanks but one
    (
        "  \n\n  x",
        [
            19124,  # b'  \n\n'
            220,  # " "
            865,  # " x"
        ],
    ),
    # line ends of Windows, and a tab
    (
        "if x:\r\n\treturn 1\r\n",
        [
            333,  # "if"
            865,  # " x"
            2904,  # b':\r\n'
            862,  # b'\treturn'
            220,  # " "
            16,  # "1"
            319,  # b'\r\n'
        ],
    ),
    # blanks beyond ASCII; U+001C is none to the rule
    (
        "a\xa0b\u2003c\x1cd\u2028e",
        [
            64,  # "a"
            115648,  # b'\xc2\xa0b'
            116503,  # b'\xe2\x80\x83'
            66,  # "c"
            216,  # b'\x1c'
            67,  # "d"
            378,  # b'\xe2\x80'
            101,  # b'\xa8'
            68,  # "e"
        ],
    ),
    # signs take the line ends after them along
    (
        "!!!\n\n...",
        [
            33157,  # b'!!!\n\n'
            1131,  # "..."
        ],
    ),
    # one token, found only by looking the piece up whole
    (
        " Vi\u1ec7t",
        [
            101798,  # " Việt"
        ],
    ),
    # one character, three tokens, none of them text
    (
        "\U0001f999",
        [
            9468,  # b'\xf0\x9f'
            99,  # b'\xa6'
            247,  # b'\x99'
        ],
    ),
    # a family held together by joiners, and a modifier
    (
        "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f44d\U0001f3fd",
        [
            9468,  # b'\xf0\x9f'
            239,  # b'\x91'
            102,  # b'\xa9'
            102470,  # b'\xe2\x80\x8d'
            9468,  # b'\xf0\x9f'
            239,  # b'\x91'
            102,  # b'\xa9'
            102470,  # b'\xe2\x80\x8d'
            9468,  # b'\xf0\x9f'
            239,  # b'\x91'
            100,  # b'\xa7'
            102470,  # b'\xe2\x80\x8d'
            9468,  # b'\xf0\x9f'
            239,  # b'\x91'
            99,  # b'\xa6'
            9468,  # b'\xf0\x9f'
            239,  # b'\x91'
            235,  # b'\x8d'
            9468,  # b'\xf0\x9f'
            237,  # b'\x8f'
            121,  # b'\xbd'
        ],
    ),
    # no blanks; cl100k_base gives other ids here
    (
        "\u8bf7\u4f60\u57fa\u4e8e\u4ee5\u4e0b\u300c\u8bc4\u4f30\u6807\u51c6\u300d",
        [
            15225,  # "请"
            57668,  # "你"
            125510,  # "基于"
            88852,  # "以下"
            13177,  # "「"
            64479,  # "评"
            112494,  # "估"
            110778,  # "标准"
            10646,  # "」"
        ],
    ),
    # composed and decomposed are different texts
    (
        "\xe9 e\u0301",
        [
            978,  # "é"
            384,  # " e"
            54939,  # "́"
        ],
    ),
    # vowel signs are no letters to the rule
    (
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
        [
            61196,  # "न"
            88344,  # "म"
            79468,  # "स"
            100365,  # "्त"
            35470,  # "े"
            100291,  # " द"
            101391,  # "ुन"
            100322,  # "िय"
            24810,  # "ा"
        ],
    ),
    # names of special tokens are text
    (
        "<|eot_id|><|begin_of_text|>",
        [
            27,  # "<"
            91,  # "|"
            68,  # "e"
            354,  # "ot"
            851,  # "_id"
            91,  # "|"
            1822,  # "><"
            91,  # "|"
            7413,  # "begin"
            3659,  # "_of"
            4424,  # "_text"
            91,  # "|"
            29,  # ">"
        ],
    ),
    # control characters, a direction override, a byte-order mark
    (
        "\x00\x1b[31m\u202e\ufeff",
        [
            188,  # b'\x00'
            91535,  # b'\x1b['
            2148,  # "31"
            76,  # "m"
            378,  # b'\xe2\x80'
            106,  # b'\xae'
            3305,  # b'\xef\xbb\xbf'
        ],
    ),
    # roles of the chat format
    (
        "user assistant system ipython",
        [
            882,  # "user"
            18328,  # " assistant"
            1887,  # " system"
            6125,  # " ip"
            27993,  # "ython"
        ],
    ),
]
