-- A database as schema version 1 wrote it. Never changes: later versions must still open it.
CREATE TABLE sessions (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL, title TEXT NOT NULL, system TEXT, used INTEGER NOT NULL) STRICT;
CREATE INDEX sessions_used ON sessions (used);
CREATE TABLE turns (session INTEGER NOT NULL REFERENCES sessions (seq) ON DELETE CASCADE, turn INTEGER NOT NULL, user TEXT NOT NULL, created_ms INTEGER NOT NULL, PRIMARY KEY (session, turn)) STRICT;
CREATE TABLE lanes (session INTEGER NOT NULL, turn INTEGER NOT NULL, lane INTEGER NOT NULL, PRIMARY KEY (session, turn, lane), FOREIGN KEY (session, turn) REFERENCES turns (session, turn) ON DELETE CASCADE) STRICT;
CREATE TABLE attempts (session INTEGER NOT NULL, turn INTEGER NOT NULL, lane INTEGER NOT NULL, attempt INTEGER NOT NULL, backend TEXT NOT NULL, model TEXT NOT NULL, quantisation TEXT, rule TEXT NOT NULL, reason TEXT NOT NULL, answer TEXT NOT NULL, thinking TEXT NOT NULL, state TEXT NOT NULL, error TEXT, PRIMARY KEY (session, turn, lane, attempt), FOREIGN KEY (session, turn, lane) REFERENCES lanes (session, turn, lane) ON DELETE CASCADE) STRICT;
CREATE TABLE pieces (piece INTEGER PRIMARY KEY, session INTEGER NOT NULL, turn INTEGER NOT NULL, lane INTEGER NOT NULL, attempt INTEGER NOT NULL, channel TEXT NOT NULL, text TEXT NOT NULL, FOREIGN KEY (session, turn, lane, attempt) REFERENCES attempts (session, turn, lane, attempt) ON DELETE CASCADE) STRICT;
CREATE INDEX pieces_attempt ON pieces (session, turn, lane, attempt);
CREATE TABLE metrics (session INTEGER NOT NULL, turn INTEGER NOT NULL, lane INTEGER NOT NULL, attempt INTEGER NOT NULL, sent_ms REAL, headers_ms REAL, first_token_ms REAL, first_answer_ms REAL, last_token_ms REAL, painted_ms REAL, total_ms REAL, prompt_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER, server TEXT, PRIMARY KEY (session, turn, lane, attempt), FOREIGN KEY (session, turn, lane, attempt) REFERENCES attempts (session, turn, lane, attempt) ON DELETE CASCADE) STRICT;
CREATE TABLE inputs (input INTEGER PRIMARY KEY, text TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;
CREATE INDEX inputs_text ON inputs (text);
INSERT INTO sessions VALUES (1, '5f000000-00000001', 1593835520000, 'What is the capital of France?', NULL, 1);
INSERT INTO turns VALUES (1, 1, 'What is the capital of France?', 1593835520000);
INSERT INTO lanes VALUES (1, 1, 0);
INSERT INTO attempts VALUES (1, 1, 0, 1, 'local', 'builtin', 'q8_0', 'default', 'first backend', 'The capital of ', '', 'open', NULL);
INSERT INTO pieces VALUES (1, 1, 1, 0, 1, 'answer', 'France is Paris.');
INSERT INTO metrics VALUES (1, 1, 0, 1, 1.0, 2.0, 30.5, 30.5, 99.0, NULL, 100.0, 20, 0, 8, '{"predicted_n":8,"predicted_ms":60.0}');
INSERT INTO inputs VALUES (1, 'What is the capital of France?', 1593835520000);
PRAGMA user_version = 1;
