-- Tell the workers which lanes have work.
-- params: words: what the channel carries (see howdah.lane_word), at most 8000 bytes.
SELECT pg_notify('howdah_wake', %(words)b::text)
