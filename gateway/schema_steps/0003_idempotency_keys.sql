CREATE TABLE idempotency_key (
    manager_id bigint NOT NULL,
    key text NOT NULL,
    digest bytea NOT NULL,
    reply text NOT NULL,
    created_time bigint NOT NULL DEFAULT extract(epoch FROM now()),
    CONSTRAINT idempotency_key_is_used_once PRIMARY KEY (manager_id, key),
    CONSTRAINT digest_is_sha256 CHECK (length(digest) = 32)
);

CREATE INDEX idempotency_key_by_time ON idempotency_key (created_time);
