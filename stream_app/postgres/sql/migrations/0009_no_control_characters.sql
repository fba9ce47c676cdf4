-- What people read on a terminal holds nothing that a terminal obeys, whoever wrote it and however. Not valid for rows that are there:
-- they stay as they are, and commands show such characters as escapes.
ALTER TABLE :"schema".reveal_audit
    ADD CONSTRAINT reveal_audit_printable CHECK (who || reason || field !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;
ALTER TABLE :"schema".dead_letters
    ADD CONSTRAINT dead_letters_printable
    CHECK (consumer_group || topic || reason || coalesce(field, '') || coalesce(resolution, '') !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;
ALTER TABLE :"schema".stream_positions
    ADD CONSTRAINT stream_positions_printable CHECK (consumer_group || topic || owner !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;
