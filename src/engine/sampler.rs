//! Choosing a token from logits: a plain maximum for greedy decoding, llama.cpp's samplers otherwise.

use super::job::{SamplerSpec, TokenId};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use llama_cpp_2::token::logit_bias::LlamaLogitBias;

/// Chooses tokens for one job.
#[derive(Debug)]
pub struct Sampler {
    chain: Option<LlamaSampler>,
    grammar: Option<LlamaSampler>,
    /// What is added to logits when there is no chain; negative infinity forbids a token.
    biases: Vec<(TokenId, f32)>,
}

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The weights are broken, or a bias is infinite.
    #[error("the model produced no finite logits")]
    NoFiniteLogits,
    /// The grammar has no way on.
    #[error("the grammar allows no further token")]
    GrammarStuck,
}

/// A grammar that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grammar does not compile: {0}")]
pub struct GrammarError(String);

impl Sampler {
    /// Builds the samplers of `spec`. `banned` are tokens never to choose.
    ///
    /// # Errors
    /// When the grammar does not compile.
    pub fn new(model: &LlamaModel, spec: &SamplerSpec, banned: Vec<TokenId>) -> Result<Self, GrammarError> {
        let grammar = match &spec.grammar {
            Some(text) => {
                Some(LlamaSampler::grammar(model, text, "root").map_err(|e| GrammarError(e.to_string()))?)
            }
            None => None,
        };
        let has_penalties =
            spec.repeat_penalty != 1.0 || spec.presence_penalty != 0.0 || spec.frequency_penalty != 0.0;
        let is_greedy = spec.temperature <= 0.0;
        let vocabulary = model.n_vocab();
        let mut biases: Vec<(TokenId, f32)> =
            spec.logit_bias.iter().filter(|(id, _)| (0..vocabulary).contains(id)).copied().collect();
        biases.extend(banned.into_iter().map(|id| (id, f32::NEG_INFINITY)));
        if is_greedy && !has_penalties && grammar.is_none() {
            return Ok(Self { chain: None, grammar: None, biases });
        }
        let mut chain = Vec::new();
        if !biases.is_empty() {
            let biases: Vec<_> =
                biases.iter().map(|(id, bias)| LlamaLogitBias::new(LlamaToken::new(*id), *bias)).collect();
            chain.push(LlamaSampler::logit_bias(vocabulary, &biases));
        }
        if has_penalties {
            chain.push(LlamaSampler::penalties(
                vocabulary,
                spec.repeat_last_n,
                spec.repeat_penalty,
                spec.frequency_penalty,
                spec.presence_penalty,
            ));
        }
        if is_greedy {
            chain.push(LlamaSampler::greedy());
        } else {
            if spec.top_k > 0 {
                chain.push(LlamaSampler::top_k(spec.top_k));
            }
            if spec.top_p < 1.0 {
                chain.push(LlamaSampler::top_p(spec.top_p, 1));
            }
            if spec.min_p > 0.0 {
                chain.push(LlamaSampler::min_p(spec.min_p, 1));
            }
            chain.push(LlamaSampler::temp(spec.temperature));
            chain.push(LlamaSampler::dist(spec.seed));
        }
        Ok(Self { chain: Some(LlamaSampler::chain(chain, true)), grammar, biases: Vec::new() })
    }

    /// Tells the penalties about the prompt.
    pub fn accept_prompt(&mut self, prompt: &[TokenId]) {
        if let Some(chain) = &mut self.chain {
            // What stands for an image is no token.
            chain.accept_many(prompt.iter().filter(|id| **id >= 0).map(|id| LlamaToken::new(*id)));
        }
    }

    /// Chooses the next token from the logits at batch index `at`.
    ///
    /// # Errors
    /// When no token can be chosen; the caller ends the job.
    pub fn sample(&mut self, context: &LlamaContext<'_>, at: i32) -> Result<TokenId, SampleError> {
        let logits = context.get_logits_ith(at);
        let Some(chain) = &mut self.chain else {
            return greedy(logits, &self.biases).ok_or(SampleError::NoFiniteLogits);
        };
        if !logits.iter().any(|l| l.is_finite()) {
            return Err(SampleError::NoFiniteLogits);
        }
        let mut candidates = context.token_data_array_ith(at);
        candidates.apply_sampler(chain);
        let mut token = candidates.selected_token().ok_or(SampleError::NoFiniteLogits)?;
        if let Some(grammar) = &mut self.grammar {
            // Cheap first: only the chosen token is checked. The whole vocabulary is run through the
            // grammar when that one is refused, before anything truncates the candidates.
            let mut single = LlamaTokenDataArray::new(vec![LlamaTokenData::new(token, 1.0, 0.0)], false);
            single.apply_sampler(grammar);
            if single.data.first().is_none_or(|d| d.logit() == f32::NEG_INFINITY) {
                let mut candidates = context.token_data_array_ith(at);
                candidates.apply_sampler(grammar);
                candidates.data.retain(|d| d.logit() > f32::NEG_INFINITY);
                if candidates.data.is_empty() {
                    return Err(SampleError::GrammarStuck);
                }
                candidates.apply_sampler(chain);
                token = candidates.selected_token().ok_or(SampleError::GrammarStuck)?;
            }
            grammar.try_accept(token).map_err(|_| SampleError::GrammarStuck)?;
        }
        chain.accept(token);
        Ok(token.0)
    }
}

/// The token with the largest finite logit after `biases` are added; the first of equals.
fn greedy(logits: &[f32], biases: &[(TokenId, f32)]) -> Option<TokenId> {
    let is_biased = |id: TokenId| biases.iter().any(|(biased, _)| *biased == id);
    let logit_of = |id: TokenId| usize::try_from(id).ok().and_then(|i| logits.get(i)).copied();
    // The best of the tokens that have no bias. Mostly the best of all is one of them.
    let mut best = largest(logits)
        .and_then(|id| if is_biased(id) { largest_where(logits, |id| !is_biased(id)) } else { Some(id) })
        .and_then(|id| logit_of(id).map(|logit| (id, logit)))
        .filter(|(_, logit)| logit.is_finite());
    for (id, _) in biases {
        let sum: f32 = biases.iter().filter(|(other, _)| other == id).map(|(_, bias)| bias).sum();
        let Some(logit) = logit_of(*id).map(|logit| logit + sum).filter(|logit| logit.is_finite()) else {
            continue;
        };
        let is_better = best.is_none_or(|(top_id, top)| logit > top || (logit == top && *id < top_id));
        if is_better {
            best = Some((*id, logit));
        }
    }
    best.map(|(id, _)| id)
}

/// The first token with the largest logit.
pub(super) fn largest(logits: &[f32]) -> Option<TokenId> {
    // Sixteen maxima side by side: one alone is a chain of comparisons that no compiler may reorder, and took
    // 50 microseconds for 32,000 tokens, five per cent of a small model's token.
    const LANES: usize = 16;
    const BLOCK: usize = 64 * LANES;
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut best = f32::NEG_INFINITY;
    let mut best_block = None;
    for (i, block) in logits.chunks(BLOCK).enumerate() {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let mut rows = block.chunks_exact(LANES);
        for row in rows.by_ref() {
            for (lane, logit) in lanes.iter_mut().zip(row) {
                *lane = larger(*logit, *lane);
            }
        }
        let top = lanes.iter().chain(rows.remainder()).fold(f32::NEG_INFINITY, |top, l| larger(*l, top));
        if top > best {
            best = top;
            best_block = Some(i);
        }
    }
    if !best.is_finite() {
        return largest_where(logits, |_| true);
    }
    let start = best_block? * BLOCK;
    let index = start + logits.get(start..)?.iter().position(|l| *l == best)?;
    TokenId::try_from(index).ok()
}

/// The first token with the largest finite logit among those that may be chosen.
fn largest_where(logits: &[f32], may_be: impl Fn(TokenId) -> bool) -> Option<TokenId> {
    (0_i32..)
        .zip(logits)
        .filter(|(id, l)| l.is_finite() && may_be(*id))
        .fold(None, |best: Option<(TokenId, f32)>, (id, l)| match best {
            Some((_, top)) if top >= *l => best,
            _ => Some((id, *l)),
        })
        .map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn greedy_respects_biases_and_skips_what_is_not_finite() {
        const NEVER: f32 = f32::NEG_INFINITY;
        let mut logits = vec![0.0; 200];
        logits[130] = 5.0;
        logits[70] = 4.0;
        assert_eq!(greedy(&logits, &[]), Some(130));
        assert_eq!(greedy(&logits, &[(130, NEVER)]), Some(70));
        assert_eq!(greedy(&logits, &[(3, 10.0)]), Some(3));
        assert_eq!(greedy(&logits, &[(3, 3.0), (3, 3.0)]), Some(3), "biases add up");
        assert_eq!(greedy(&logits, &[(130, -2.0)]), Some(70));
        assert_eq!(greedy(&logits, &[(1000, 9.0), (-1, 9.0)]), Some(130), "no such tokens");
        assert_eq!(greedy(&[f32::NAN, f32::NAN], &[]), None);
        assert_eq!(greedy(&[f32::NAN, 1.0], &[]), Some(1));
        assert_eq!(greedy(&[f32::INFINITY, 1.0], &[]), Some(1));
        assert_eq!(greedy(&[1.0], &[(0, NEVER)]), None);
        assert_eq!(greedy(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn greedy_is_the_first_maximum(
            logits in prop::collection::vec(-5.0_f32..5.0, 1..300),
            biases in prop::collection::vec((0_i32..300, -9.0_f32..9.0), 0..4),
        ) {
            let mut sums = logits.clone();
            for (id, bias) in &biases {
                if let Some(sum) = sums.get_mut(*id as usize) {
                    *sum += bias;
                }
            }
            let found = greedy(&logits, &biases).and_then(|id| usize::try_from(id).ok()).unwrap();
            // Sums may differ in the last bit by the order of addition.
            let top = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert!((sums[found] - top).abs() < 1e-4);
            if biases.is_empty() {
                prop_assert_eq!(found, sums.iter().position(|l| *l == top).unwrap());
            }
        }
    }
}
