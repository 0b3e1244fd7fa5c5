-- Where the migrator writes down what it applied. It makes this table itself, before the first file.
CREATE TABLE howdah.migrations (
    file text NOT NULL,
    checksum bytea NOT NULL,
    is_breaking boolean NOT NULL,
    duration_s real NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT migrations_pkey PRIMARY KEY (file),
    CONSTRAINT migrations_checksum_check CHECK (octet_length(checksum) = 32)
);

COMMENT ON TABLE howdah.migrations IS 'SQL files that howdah migrate applied: numbered ones once, functions, views and grants whenever they change.';
COMMENT ON COLUMN howdah.migrations.file IS 'Name of the file; a directory in front marks one that is applied again when it changes.';
COMMENT ON COLUMN howdah.migrations.checksum IS 'SHA-256 of the file as it was applied.';
COMMENT ON COLUMN howdah.migrations.is_breaking IS 'True if releases that do not know the file must not run any more.';
COMMENT ON COLUMN howdah.migrations.duration_s IS 'Seconds that it took.';
COMMENT ON COLUMN howdah.migrations.applied_at IS 'When it was applied, the last time.';
