//! Counting tokens without loading a model: byte-level BPE from the tokens and merges of a model file.
//!
//! Only vocabularies of that kind whose way of splitting text into words is known are counted; for others
//! there is no counter, and the engine has to be asked.

use super::gguf::Vocabulary;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Counts the tokens of texts as one model's tokenizer makes them.
#[derive(Debug)]
pub struct TokenCounter {
    tokenizer: Tokenizer,
}

impl TokenCounter {
    /// A counter for this vocabulary; none when it is of another kind, or its merges don't fit its tokens.
    #[must_use]
    pub fn new(vocabulary: Vocabulary) -> Option<Self> {
        if vocabulary.model != "gpt2" {
            return None;
        }
        let (pattern, ignore_merges) = match vocabulary.pre.as_str() {
            "qwen2" | "deepseek-r1-qwen" | "megrez" => (QWEN2, false),
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => (LLAMA3, true),
            "gpt-2" | "phi-2" | "mellum" => (GPT2, false),
            _ => return None,
        };
        let specials: Vec<AddedToken> = vocabulary
            .specials
            .iter()
            .filter_map(|id| vocabulary.tokens.get(usize::try_from(*id).ok()?))
            .filter(|text| !text.is_empty())
            .map(|text| AddedToken::from(text.clone(), true))
            .collect();
        let ids: Vocab = vocabulary.tokens.into_iter().zip(0..).collect();
        // The builder panics on a merge whose result is longer than any token, so all are looked up first.
        let merges: Option<Vec<(String, String)>> =
            vocabulary.merges.iter().map(|merge| halves(merge).filter(|pair| is_known(&ids, pair))).collect();
        let model =
            BPE::builder().vocab_and_merges(ids, merges?).ignore_merges(ignore_merges).build().ok()?;
        let words =
            Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
                .ok()?;
        let parts: Vec<PreTokenizerWrapper> = vec![words.into(), ByteLevel::new(false, true, false).into()];
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        tokenizer.add_special_tokens(specials).ok()?;
        Some(Self { tokenizer })
    }

    /// The tokens of a text, names of special tokens read as those tokens.
    #[must_use]
    pub fn tokens(&self, text: &str) -> Option<Vec<u32>> {
        self.tokenizer.encode_fast(text, false).ok().map(|encoding| encoding.get_ids().to_vec())
    }

    /// The number of tokens of a text, names of special tokens counted as those tokens.
    #[must_use]
    pub fn count(&self, text: &str) -> Option<usize> {
        self.tokenizer.encode_fast(text, false).ok().map(|encoding| encoding.len())
    }
}

/// The two tokens of a merge. The first may itself begin with a space.
fn halves(merge: &str) -> Option<(String, String)> {
    let (at, _) = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?;
    let (left, right) = merge.split_at_checked(at)?;
    Some((left.to_owned(), right.strip_prefix(' ')?.to_owned()))
}

fn is_known(ids: &Vocab, (left, right): &(String, String)) -> bool {
    ids.contains_key(left) && ids.contains_key(right) && ids.contains_key(&format!("{left}{right}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gguf;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;
    use std::path::Path;

    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn both() -> (TokenCounter, Tokenizer) {
        let vocabulary = gguf::vocabulary(&file("models/builtin.gguf")).unwrap();
        let reference = Tokenizer::from_file(file("tests/models/tokenizer.json")).unwrap();
        (TokenCounter::new(vocabulary).unwrap(), reference)
    }

    #[test]
    fn the_builtin_model_is_counted_as_its_own_tokenizer_counts() {
        let (counter, reference) = both();
        let texts = [
            "",
            "Hello",
            "What is the capital of France?",
            "The capital of France is Paris.",
            "don't we'll they're I'm",
            "12345 67 8",
            "  leading and   inner   spaces  ",
            "line one\n\n\nline two\r\n\ttabbed",
            "fn main() { println!(\"{:?}\", x << 2); }",
            "日本語のテキスト",
            "مرحبا بالعالم",
            "👍🏽 👨‍👩‍👧 é e\u{301}",
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            "<|im_sta rt|> <|endoftext|>",
            "\u{0}\u{1b}[2J\u{7f}",
        ];
        for text in texts {
            let expected = reference.encode(text, false).unwrap().len();
            assert_eq!(counter.count(text), Some(expected), "{text:?}");
        }
        let long = texts.join("\n").repeat(50);
        assert_eq!(counter.count(&long), Some(reference.encode(long.as_str(), false).unwrap().len()));
    }

    #[test]
    fn other_vocabularies_are_not_guessed() {
        let good = gguf::vocabulary(&file("models/builtin.gguf")).unwrap();
        let changes: [&dyn Fn(&mut Vocabulary); 6] = [
            &|v| v.model = "llama".to_owned(),
            &|v| v.pre = "tekken".to_owned(),
            &|v| v.pre = String::new(),
            &|v| v.merges.push("nowhere tobefound".to_owned()),
            &|v| v.merges.push("nospace".to_owned()),
            &|v| v.merges.push(String::new()),
        ];
        for change in changes {
            let mut vocabulary = good.clone();
            change(&mut vocabulary);
            assert!(TokenCounter::new(vocabulary).is_none());
        }
        // A merge whose result is no token, though both halves are the longest there are.
        let mut vocabulary = good;
        let longest = vocabulary.tokens.iter().max_by_key(|t| t.len()).unwrap().clone();
        vocabulary.merges.push(format!("{longest} {longest}"));
        assert!(TokenCounter::new(vocabulary).is_none());
        assert!(TokenCounter::new(Vocabulary::default()).is_none());
    }

    #[test]
    fn the_known_ways_of_splitting_compile() {
        let good = gguf::vocabulary(&file("models/builtin.gguf")).unwrap();
        for (pre, numbers) in [("qwen2", 6), ("llama-bpe", 2), ("gpt-2", 1)] {
            let counter = TokenCounter::new(Vocabulary { pre: pre.to_owned(), ..good.clone() }).unwrap();
            assert!(counter.count("123456").unwrap() >= numbers, "{pre}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_counted_alike(texts in prop::collection::vec(".{0,40}", 8)) {
            let (counter, reference) = both();
            for text in texts {
                let expected = reference.encode(text.as_str(), false).unwrap().len();
                prop_assert_eq!(counter.count(&text), Some(expected));
            }
        }
    }
}
