"""One clip with two phrases, in each JSON format."""

FIRST = {
    "audiocap_id": {"7": 99, "8": 99},
    "filename": {"7": "abcdefghijk_30.000_40.000.wav", "8": "abcdefghijk_30.000_40.000.wav"},
    "caption": {"7": "a dog, then a dog barks", "8": "a dog, then a dog barks"},
    "tokens": {
        "7": ["a", "dog", ",", "then", "a", "dog", "barks"],
        "8": ["a", "dog", ",", "then", "a", "dog", "barks"],
    },
    "soundtag": {"7": "a dog", "8": "a dog barks"},
    "start_word": {"7": 0, "8": 4},
    "timestamps": {"7": [[0.5, 1.0], [2.0, 2.5]], "8": [[3, 10.02]]},
}
SECOND = [
    {
        "audiocap_id": 99,
        "audio_id": "Yabcdefghijk.wav",
        "tokens": "a dog , then a dog barks",
        "phrases": [
            {"phrase": "a dog", "start_index": 0, "end_index": 1, "segments": [[0.5, 1.0], [2.0, 2.5]]},
            {"phrase": "a dog barks", "start_index": 4, "end_index": 6, "segments": []},
        ],
    },
    {"audiocap_id": 98, "audio_id": "Yabcdefghijl.wav", "tokens": ["rain"], "phrases": []},
]
JAMS = {
    "annotations": [
        {
            "namespace": "segment_open",
            "data": [{"time": 0.5, "duration": 1.0, "value": "dog", "confidence": None}],
            "sandbox": {"records": [{"offset": 1.5, "low": 1.0, "high": 2.0, "span": [0, 3]}]},
        }
    ],
    "file_metadata": {"title": "a.wav", "duration": 10.0},
}
