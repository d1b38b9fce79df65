CREATE TABLE revoked_token (
    issuer text NOT NULL,
    jti text NOT NULL,
    expires_time bigint NOT NULL,
    revoked_time bigint NOT NULL DEFAULT extract(epoch FROM now()),
    CONSTRAINT revoked_token_is_unique PRIMARY KEY (issuer, jti)
);

CREATE INDEX revoked_token_by_end ON revoked_token (expires_time);

CREATE TRIGGER revoked_token_advances_access_epoch
AFTER INSERT ON revoked_token
FOR EACH STATEMENT EXECUTE FUNCTION advance_access_epoch();
