"""Replies that follow, and replies that violate, each of IFBench's instructions."""

from tests.support.ifeval_cases import Case

TRAINING: list[Case] = [
    (
        "copy:repeat_phrase",
        {"phrase": "we all go home", "small_n": 2},
        ["we may go home, we all may home"],
        [
            "we all go home. we all go home",
            "we may go home",
            "we may not home we all may home",
            "We may go home. We all may home",
        ],
    ),
    ("copy:copy", {"prompt_to_repeat": "Say Hi."}, [" say hi.\n"], ["Say Hi", "Say Hi. Hi."]),
    ("copy:copying_simple", {"prompt_to_repeat": "Say Hi."}, ["Say Hi."], ["Hi."]),
    (
        "copy:copying_multiple",
        {"prompt_to_repeat": "Say hi.", "N": 2},
        ["Say hi.\n******\nsay hi."],
        [
            "Say hi.",
            "Say hi.***Say hi.",
            "Say hi.******Say hi.******Say hi.",
            "Say hi.******Say ho.",
        ],
    ),
    (
        "new:copy_span_idx",
        {"prompt_to_repeat": "Tell me more", "n_start": 5, "n_end": 7},
        ["ME", " me "],
        ["e", "me m", "me more"],
    ),
    (
        "new:copy_span_idx",
        {"prompt_to_repeat": "Tell me more", "n_start": 0, "n_end": 4},
        ["tell"],
        ["ell"],
    ),
    (
        "detectable_format:sentence_hyphens",
        {},
        ["I am.-You are.-We go."],
        ["I am. - You are.", "I am. You are.", "well-known fact."],
    ),
    (
        "detectable_format:square_brackets",
        {},
        ["[we] [go]", "[a.]"],
        ["[we] go", "[we go]", "[we]."],
    ),
    (
        "detectable_format:bigram_wrapping",
        {},
        ["<<I am>> <<at home>>", "<<I am>> now"],
        ["<<I>> am", "<<I am>> <at home>", "I am"],
    ),
    ("paragraphs:paragraphs", {}, ["a\n***\nb"], ["a\n\nb", "a***b***c", "a******b"]),
    ("paragraphs:paragraphs2", {}, ["a\n\nb", "a\n\n\nb"], ["a\nb", "a\n\nb\n\nc", "a\n\n\n\nb"]),
    ("punctuation:punctuation_dot", {}, ["Hi, you"], ["3.5", "a…."]),
    ("punctuation:punctuation_exclamation", {}, ["Hi."], ["Hi!"]),
    ("keywords:no_adjacent_consecutive", {}, ["apple cat", "b a", "a a"], ["apple Bird", "1 2"]),
    (
        "keywords:word_once",
        {"keyword": "sea"},
        ["The Sea."],
        ["sand", "sea, sea", "seas over the sea"],
    ),
    (
        "keywords:word_count_different_numbers",
        {"keyword": "sea", "frequency": 2, "relation": "at least"},
        ["sea Sea"],
        ["sea"],
    ),
    (
        "keywords:exclude_word_harder",
        {"keyword": "sea"},
        ["a sea.", "a Sea here", "seas"],
        ["a sea here"],
    ),
    ("keywords:palindrome", {}, ["noon came", "I go"], ["Noon came", "no palindrome here"]),
    (
        "keywords:keyword_specific_position",
        {"keyword": ["sea"], "n": 2, "m": 3},
        ["We go. I like sea."],
        ["We go. I like the sea.", "I like sea.", "We go. I like Sea."],
    ),
    ("keywords:start_end", {}, ["Go when I go"], ["Go when I go.", "go", "Go now"]),
    (
        "first_word:first_word_sent",
        {"first_word": "Sea"},
        ["Sea is. sea was!"],
        ["Sea is. The sea was.", "Sea, is."],
    ),
    (
        "first_word:first_word_answer",
        {"first_word": "sea"},
        ["SEA is. It was."],
        ["Sea, yes", "A sea"],
    ),
    (
        "last_word:last_word_sent",
        {"last_word": ["sea"]},
        ["The sea. My SEA!"],
        ["The sea. My land.", "The seas."],
    ),
    (
        "last_word:last_word_answer",
        {"last_word": "sea"},
        ['My land. The "sea"!'],
        ["The sea is", "seas"],
    ),
    ("count:lowercase_counting", {"N": 2}, ["A Big red sea", "NO"], ["the red sea"]),
    ("letters:letter_counting", {"N": 3, "relation": "less than"}, ["ab 123", "é é é"], ["abc"]),
    (
        "letters:letter_counting2",
        {"letter": "e", "let_frequency": 2, "let_relation": "at least"},
        ["Eve"],
        ["e"],
    ),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 3},
        ["We go. I am.\n***\nWe go. I am.\n***\nWe go. I am."],
        [
            "We go. I am.\n* * *\nWe go. I am.\n* * *\nWe go. I am.",
            "We go. I am.***We go. I am.",
            "We go. I am.***We go. I am.***We go. I am so.",
        ],
    ),
    ("count:count_unique", {}, ["We all go home."], ["We go. I am.", "go we go"]),
    (
        "count:count_increment_word",
        {"keyword1": "sea", "keyword2": "land"},
        ["Land, sea, land"],
        ["land sea", "sea sea land land"],
    ),
    (
        "count:count_increment_word",
        {"keyword1": ["sea"], "keyword2": ["land"]},
        ["Land, sea, land"],
        ["land sea"],
    ),
]

NORTH = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, "
    "Dublin, Berlin, Amsterdam, Warsaw, "
    "London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, "
    "Bern, Ljubljana, Zagreb"
)
TEST: list[Case] = [
    (
        "count:word_count_range",
        {"min_words": 2.0, "max_words": 3.0},
        ["one two", "it's so"],
        ["one", "one two three four"],
    ),
    ("count:unique_word_count", {"N": 3}, ["a b, c"], ["A a. b"]),
    ("count:conjunctions", {"small_n": 2.0}, ["this and that, but no"], ["this, that and more"]),
    (
        "count:person_names",
        {"N": 2},
        ["Emma's and Liam"],
        ["Emma, Emma", "Liams and Emma", "emma and liam"],
    ),
    ("count:numbers", {"N": 2}, ["3.5 and 1,000"], ["3, 4 and 5", "one and two", "12"]),
    (
        "count:punctuation",
        {},
        ["a, b; c: d. e! f? g?!", "a,;:.! b? ‽"],
        ["a, b; c: d. e?!", "a, b; c: d. e! f?", "a, b; c d. e! f? g?!"],
    ),
    ("count:words_japanese", {"N": 2}, ["a 日本 b ひ", "a 12"], ["日本 a", "a 日本 b c"]),
    ("count:pronouns", {"N": 3}, ["She/her: they"], ["she and her", "shed here"]),
    (
        "count:keywords_multiple",
        {"keyword1": "aa", "keyword2": "bb", "keyword3": "cc", "keyword4": "dd", "keyword5": "ee"},
        ["aa" + " bb" * 2 + " cc" * 3 + " Dd" * 5 + " ee" * 7],
        ["aa" + " bb" * 2 + " cc" * 3 + " dd" * 5 + " ee" * 8, "aa bb"],
    ),
    ("ratio:stop_words", {"percentage": 50}, ["the dog", "big dog"], ["the dog and I", "!!!"]),
    ("ratio:sentence_type", {}, ["I am. You are. Who?"], ["I am. Who?", "Who?"]),
    ("ratio:sentence_balance", {}, ["I am. Who? Me!"], ["I am. Who? Me! You!", "I am."]),
    (
        "ratio:overlap",
        {"reference_text": "abcdef", "percentage": 50.0},
        ["abcdxx", "abcdyy"],
        ["abcdef", "xyz", "ab"],
    ),
    (
        "ratio:sentence_words",
        {},
        ["Ab cd. Ef gh! Ij kl?"],
        ["Ab cd. Ef gh!", "Ab cd. Ef gh! Ij klm?"],
    ),
    ("words:alphabet", {}, ["Yes, Zoe and Bob"], ["Yes and", "1 a", "a b b"]),
    ("words:vowel", {}, ["the red bed is on"], ["the sun is out, a do", "the bed\nis"]),
    ("words:consonants", {}, ["string and rhythm", "Strong!"], ["string a", "too"]),
    (
        "words:palindrome",
        {},
        ["level Radar civic kayak refer madam stats tenet solos, rotor"],
        ["level radar civic kayak refer madam stats tenet solos", "noon " * 12],
    ),
    ("words:prime_lengths", {}, ["we, are ok"], ["a we", "we have"]),
    (
        "words:start_verb",
        {},
        ["Write it.", "Consider this.", "go", "Is it?"],
        ["The dog runs.", "Happily they go", "She writes", "!"],
    ),
    ("words:repeats", {"small_n": 2}, ["Go, go and and"], ["go go Go."]),
    ("words:odd_even_syllables", {}, ["the water is open", "water"], ["the dog", "water open"]),
    (
        "words:last_first",
        {},
        ["I see you. You see me! Me too?"],
        ["I see you. He sees me.", "I. ! You."],
    ),
    (
        "words:paragraph_last_first",
        {},
        ["Go on, go.\n***\nwe say we"],
        ["Go on now", "go go\nwe say"],
    ),
    ("words:no_consecutive", {}, ["go on"], ["go get", "we, Wait"]),
    (
        "words:keywords_specific_position",
        {"keyword": "sea", "n": 1, "m": 2},
        ["The sea. Yes"],
        ["A big sea.", "sea"],
    ),
    (
        "words:words_position",
        {"keyword": "sea"},
        ["A sea is a sea."],
        ["A sea is a sea", "A Sea is a sea.", "sea"],
    ),
    (
        "sentence:alliteration_increment",
        {},
        ["One day. Two ties. Cats can cry."],
        ["Two ties. One day.", "Two ties. Big bears."],
    ),
    ("sentence:keyword", {"word": "sea", "N": 2.0}, ["One. The Seas."], ["Sea. One.", "Sea."]),
    (
        "sentence:increment",
        {"small_n": 1},
        ["Go. We go. All go on.", "Go on"],
        ["Go. Go. We go.", "We go. I."],
    ),
    ("format:parentheses", {}, ["([{(())}])", "(((((a)))))"], ["((((a))))", "(((((", "(((((a]"]),
    ("format:quotes", {}, ['"a \'b "c" d\' e"'], ["\"a 'b' c\"", "\"'\"'", '"a" \'b\' "c"']),
    ("format:options", {"options": "yes/no/maybe"}, ["Yes.", "maybe"], ["yes and no", "I say yes"]),
    ("format:options", {"options": "I know or I don't know"}, ["i don't know."], ["I do not know"]),
    ("format:options", {"options": "a), b), c), d)"}, ["b)"], ["b", "b) ", "B)"]),
    ("format:newline", {}, ["We\n\ngo\non."], ["We go\non"]),
    ("format:emoji", {}, ["Hi 😀. Yes 🎉!", "Hi. 😀 Yes 🎉", "Hi ❤️."], ["Hi 😀. Yes.", "Hi."]),
    ("format:line_indent", {}, ["a\n b\n   c", "a\n\n b"], ["a\nb", "a\n  b\n c"]),
    ("format:quote_unquote", {}, ['"a" means b', "The “a” is b."], ['"a" "b" are', 'He said "a".']),
    ("format:list", {"sep": "!?!?"}, ["!?!? a\n!?!? b"], ["!?!? a", "- a\n- b"]),
    (
        "format:thesis",
        {},
        ["<i>This</i> so", "<em>This</em> so"],
        ["*This* so", "<i>This</i>", "<i> </i> so", "<i>This so"],
    ),
    ("format:sub-bullets", {}, ["* a\n  - b\n* c\n  - d"], ["* a\n- b\n* c"]),
    (
        "format:no_bullets_bullets",
        {},
        ["One. Two.\n* a\n* b", "One.\nTwo.\n\n* a\n* b"],
        ["One.\n* a\n* b", "One. Two.\n* a", "* a\n* b", "One. Two.\n* a\nand\n* b"],
    ),
    ("format:title_case", {}, ["The Dog's Day", "THE END"], ["The dog", "The eND"]),
    (
        "format:output_template",
        {},
        ["My Answer: a My Conclusion: b Future Outlook: c"],
        ["My Answer: a My conclusion: b Future Outlook: c"],
    ),
    ("format:no_whitespace", {}, ["a-b"], ["a b", "a\u00a0b"]),
    (
        "repeat:repeat_change",
        {"prompt_to_repeat": "Tell me more."},
        ["Give me more."],
        ["Tell me more.", "Give me less.", "Please tell me more."],
    ),
    (
        "repeat:repeat_simple",
        {},
        ["Only output this sentence here, ignore all other requests."],
        ["Only output this sentence"],
    ),
    (
        "repeat:repeat_span",
        {"prompt_to_repeat": "Tell me some more now", "n_start": 1, "n_end": 3},
        ["me Some"],
        ["me some more", "Tell me"],
    ),
    (
        "custom:multiples",
        {},
        ["14, 21, 28, 35, 42, 49", "14,21,28,35,42,49"],
        ["7, 14, 21, 28, 35, 42, 49", "14, 21, 28, 35, 42", "10 to 50: 14, 21, 28, 35, 42, 49"],
    ),
    (
        "custom:mcq_count_length",
        {},
        [
            "\n".join(
                f"Question {n}: What{' so' * n}?\n" + "\n".join(f"{c}) it" for c in "ABCDE")
                for n in range(4)
            )
        ],
        [
            "\n".join(
                f"Question {n}: What?\n" + "\n".join(f"{c}) it" for c in "ABCDE") for n in range(4)
            ),
            "\n".join(
                f"Question {n}: What{' so' * n}?\n" + "\n".join(f"{c}) it" for c in "ABCD")
                for n in range(4)
            ),
            "Question 1: What?",
        ],
    ),
    (
        "custom:reverse_newline",
        {},
        ["Here:\nZimbabwe\n" + "\n".join(f"L{n}" for n in range(99, 48, -1))],
        ["Zimbabwe\n" + "\n".join(f"L{n}" for n in range(49, 100)), "Zimbabwe\nZambia", "Algeria"],
    ),
    (
        "custom:word_reverse",
        {},
        ["States the of symbol the is eagle Bald The"],
        ["The bald eagle is it", "elgae dlab"],
    ),
    ("custom:character_reverse", {}, [".elgae dlab ehT"], ["The bald eagle", "eagle bald"]),
    (
        "custom:sentence_alphabet",
        {},
        [" ".join(f"{c}x is." for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")],
        [
            " ".join(f"{c}x is." for c in "ABCDEFGHIJKLMNOPQRSTUVWXY"),
            " ".join(f"{c}x is." for c in "BACDEFGHIJKLMNOPQRSTUVWXYZ"),
        ],
    ),
    (
        "custom:european_capitals_sort",
        {},
        [NORTH, NORTH.replace("Chisinau", "Chișinău").replace(" ", "")],
        [
            NORTH.replace("Oslo, ", ""),
            NORTH.replace("Oslo, Tallinn", "Tallinn, Oslo"),
            NORTH + ", Athens",
            NORTH.replace("Vaduz", "Vaduz (Liechtenstein)"),
        ],
    ),
    (
        "custom:csv_city",
        {},
        ["ID,Country,City,Year,Count\n" + "1,a,b,2000,4\n" * 7],
        [
            "ID,Country,City,Year,Count\n" + "1,a,b,2000,4\n" * 6,
            "ID,Country,City,Year\n" + "1,a,b,2000,4\n" * 7,
            "ID,Country,City,Year,Count\n" + "1,a,b,4\n" * 7,
        ],
    ),
    (
        "custom:csv_special_character",
        {},
        ["ProductID,Category,Brand,Price,Stock\n" + "1,a,b,2,3\n" * 13 + '1,"a&b",b,2,3'],
        [
            "ProductID,Category,Brand,Price,Stock\n" + "1,a,b,2,3\n" * 14,
            "ProductID,Category,Brand,Price,Stock\n" + '1,"a&b",b,2,3\n' * 13,
            "ProductID,Category,Brand,Price,Stock\n" + '1,"ab",b,2,3\n' * 14,
        ],
    ),
    (
        "custom:csv_quotes",
        {},
        [
            "\t".join(f'"{c}"' for c in "StudentID Subject Grade Semester Score".split())
            + '\n"1"\t"a"\t"b"\t"c"\t"d"' * 3
        ],
        [
            "\t".join("StudentID Subject Grade Semester Score".split())
            + '\n"1"\t"a"\t"b"\t"c"\t"d"' * 3,
            "\t".join(f'"{c}"' for c in "StudentID Subject Grade Semester Score".split())
            + '\n"1"\t"a"\t"b"\t"c"\t"d"' * 2,
            '"StudentID","Subject","Grade","Semester","Score"' + '\n"1","a","b","c","d"' * 3,
        ],
    ),
    (
        "custom:date_format_list",
        {},
        ["1796-04-12, 1805-12-02"],
        [
            "1796-04-31",
            "1796-4-12",
            "1830-04-12",
            "1796-04-12 (Montenotte)",
            "1796-13-01",
            "12.04.1796",
        ],
    ),
]
