/* Texts to token ids: BERT's normalizer and splitting with WordPiece, and GPT-2's splitting with byte-level
 * BPE.
 *
 * It makes the same ids as Hugging Face's `tokenizers`. It leaves a text to that library if the text contains
 * an added token, or a character on which versions of Unicode differ (see unicode.h). */
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EC_TOKENIZER_ABI_VERSION 1
#define EC_TOKENIZER_SLACK 32 /* readable bytes after the last text */

enum { EC_WORDPIECE = 0, EC_BYTE_LEVEL = 1 };

typedef struct {
  const char* bytes;      /* UTF-8, one string after another */
  const int64_t* offsets; /* [n + 1] */
  int64_t n;
} ec_strings;

typedef struct {
  int32_t kind;
  int32_t strip_accents, lowercase, ideographs; /* WordPiece: whether; ideographs stand for themselves */
  int32_t max_chars, unknown;                   /* WordPiece: a longer word is unknown; the id of "unknown" */
  int32_t prefix_space, ignore_merges, nfc;     /* byte-level BPE: whether */
  ec_strings vocabulary;                        /* as tokenizer.json spells it */
  const int32_t* ids;                           /* [vocabulary.n] */
  ec_strings continuing;         /* WordPiece: one string, what stands before a piece inside a word */
  ec_strings merges;             /* byte-level BPE: "left right", by rank */
  ec_strings added;              /* added tokens: a text that holds one is left */
  const int32_t *before, *after; /* special tokens around each text */
  int64_t n_before, n_after;
  int64_t max_length; /* more than n_before + n_after */
  int32_t left;       /* whether a long text loses its start, not its end */
} ec_tokenizer_spec;

typedef struct ec_tokenizer ec_tokenizer;

int32_t ec_tokenizer_abi_version(void);
const char* ec_tokenizer_last_error(void); /* of this thread */

/* Copies what it needs from the spec. NULL on failure; ec_tokenizer_last_error says why. */
ec_tokenizer* ec_tokenizer_create(const ec_tokenizer_spec*);
void ec_tokenizer_destroy(ec_tokenizer*);

/* May be called from several threads at once.
 *
 * texts: valid UTF-8, followed by EC_TOKENIZER_SLACK readable bytes.
 * threads: how many to use, 1 or more.
 * ids: receives the rows, one after another; room for as many ids as all texts have bytes, and for
 *   n_before + n_after + 1 more per text.
 * rows: [n + 1], where each row begins among the ids, and their number.
 * lengths: [n], the ids of each text before truncation; -1: the text is left to the library, its row is
 * empty. Returns 0, or 1 on failure; ec_tokenizer_last_error says why. */
int32_t ec_tokenizer_run(const ec_tokenizer*, const ec_strings* texts, int32_t threads, int32_t* ids,
                         int64_t* rows, int64_t* lengths);

#ifdef __cplusplus
}
#endif
