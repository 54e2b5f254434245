//! Each operation against its plain twin, and its gradients against finite differences.

use candle_core::{Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    activation::{self, Activation, activate},
    attention::{self, attention, self_attention},
    auto_correlation::{self, Lags, auto_correlation},
    batch_norm::{self, batch_norm},
    causal_attention::{self, causal_attention},
    copies::{self, fold_copies},
    decomposition::{self, Component, add_decompose, decompose},
    dropout::{self, Dropout},
    feed_forward::{self, TwoMaps, feed_forward},
    halve::{self, halve},
    linear::{self, Map, linear},
    loss::Loss,
    matmul::{mapped, times, times_transposed},
    max_pool::{self, max_pool},
    mixing::{self, mix, normalised_softplus},
    moving_average::{self, moving_average},
    neighbours::{self, neighbours},
    norm::{self, Affine, add_norm, norm},
    part::{self, part},
    per_variate::{PerVariate, Way},
    prob_sparse::{ProbSparse, Samples},
    transform,
};
use crate::models::neural::{
    pass::{Pass, Sink},
    weights::{Init, Weight, Weights},
};

pub(super) fn random(dims: &[usize], seed: u64) -> Var {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| random.random_range(-1.5..1.5)).collect();
    Var::from_vec(values, dims, &Device::Cpu).unwrap()
}

pub(super) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn close(left: &[f32], right: &[f32], tolerance: f32, what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        let apart = (left - right).abs() / right.abs().max(1.0);
        assert!(apart < tolerance, "{what} at {index}: {left} and {right}");
    }
}

/// `fused` and `plain` give the same values and the same gradients, for inputs and weights alike;
/// both are weighted with the same random numbers to one number.
fn agree(
    what: &str,
    inputs: &[&Var],
    weights: &[&Weight],
    fused: impl Fn(&Pass) -> Result<Tensor>,
    plain: impl Fn(&Pass) -> Result<Tensor>,
) {
    let run = |of: &dyn Fn(&Pass) -> Result<Tensor>| {
        let sink = Sink::default();
        let out = of(&Pass::training(sink.clone(), 7, 0)).unwrap();
        let factors = random(out.dims(), 99);
        let store = (&out * factors.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let mut gradients: Vec<Vec<f32>> =
            inputs.iter().map(|input| values(store.get(input).expect("an input has a gradient"))).collect();
        for weight in weights {
            let sink = sink.lock();
            let own = sink.get(weight).map(<[f32]>::to_vec);
            gradients.push(own.or_else(|| store.get(weight.tensor()).map(values)).expect("a weight has a gradient"));
        }
        (values(&out), gradients)
    };
    let (out, gradients) = run(&fused);
    let (plain_out, plain_gradients) = run(&plain);
    close(&out, &plain_out, 3e-6, what);
    for (index, (fused, plain)) in gradients.iter().zip(&plain_gradients).enumerate() {
        close(fused, plain, 2e-5, &format!("{what}, gradient {index}"));
    }
    let inference = fused(&Pass::inference()).unwrap();
    assert!(!inference.track_op(), "{what} keeps a graph in inference");
    close(&values(&inference), &plain_out, 3e-6, what);
}

/// The gradient on the tape is that of differences, along a random direction.
fn differentiates(what: &str, input: &Var, of: impl Fn(&Tensor, &Pass) -> Result<Tensor>) {
    let factors = random(of(input, &Pass::inference()).unwrap().dims(), 98);
    let number = |x: &Tensor, pass: &Pass| -> Result<Tensor> { (of(x, pass)? * factors.as_tensor())?.sum_all() };
    let pass = || Pass::training(Sink::default(), 7, 0);
    let store = number(input, &pass()).unwrap().backward().unwrap();
    let gradient = values(store.get(input).expect("the input has a gradient"));
    let direction = values(&random(input.dims(), 97));
    let step = 2e-2f32;
    let moved = |sign: f32| {
        let moved: Vec<f32> = values(input).iter().zip(&direction).map(|(x, d)| x + sign * step * d).collect();
        let moved = Var::from_vec(moved, input.dims(), &Device::Cpu).unwrap();
        f64::from(number(&moved, &pass()).unwrap().to_scalar::<f32>().unwrap())
    };
    let difference = (moved(1.0) - moved(-1.0)) / f64::from(2.0 * step);
    let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
    assert!((difference - along).abs() < 5e-3 * along.abs().max(1.0), "{what}: {difference} and {along}");
}

pub(super) fn weights() -> Weights {
    Weights::new(5, Device::Cpu)
}

pub(super) fn affine(weights: &Weights, width: usize) -> Affine {
    Affine {
        weight: weights.trained("weight", &[width], Init::Normal(1.0)).unwrap(),
        bias: weights.trained("bias", &[width], Init::Normal(1.0)).unwrap(),
    }
}

#[test]
fn linear_maps() {
    let weights = weights();
    let x = random(&[2, 5, 7], 1);
    let maps = [weights.linear("a", 7, 4).unwrap(), weights.pointwise("b", 7, 9).unwrap()];
    let all: Vec<&Weight> = maps.iter().flat_map(|map| [Some(&map.weight), map.bias.as_ref()]).flatten().collect();
    agree("linear", &[&x], &all, |pass| linear(&x, &maps, pass), |pass| linear::plain(&x, &maps, pass));
    differentiates("linear", &x, |x, pass| linear(x, &maps, pass));
    let without_bias = [Map { bias: None, ..maps[0].clone() }];
    let weight = &without_bias[0].weight;
    agree(
        "linear without bias",
        &[&x],
        &[weight],
        |pass| linear(&x, &without_bias, pass),
        |pass| linear::plain(&x, &without_bias, pass),
    );
}

#[test]
fn layer_norms() {
    let weights = weights();
    let (x, branch) = (random(&[3, 2, 21], 1), random(&[3, 2, 21], 2));
    let affine = affine(&weights, 21);
    let all = [&affine.weight, &affine.bias];
    agree("norm", &[&x], &all, |pass| norm(&x, &affine, pass), |pass| norm::plain(&x, &affine, pass));
    agree(
        "add-norm",
        &[&x, &branch],
        &all,
        |pass| add_norm(&x, &branch, &affine, None, pass),
        |pass| norm::plain(&(x.as_tensor() + branch.as_tensor())?, &affine, pass),
    );
    differentiates("norm", &x, |x, pass| norm(x, &affine, pass));
    // With the same key the mask is the same each time, so differences see a smooth function.
    differentiates("add-norm with dropout", &branch, |branch, pass| {
        add_norm(&x, branch, &affine, pass.dropout(0.4, 42), pass)
    });
}

#[test]
fn activations() {
    let x = random(&[4, 33], 1);
    for kind in [Activation::Gelu, Activation::Relu] {
        let plain = |_: &Pass| activation::plain(x.as_tensor(), kind, None);
        agree("activation", &[&x], &[], |pass| activate(&x, kind, None, pass), plain);
        differentiates("activation with dropout", &x, |x, pass| activate(x, kind, pass.dropout(0.3, 33), pass));
    }
}

#[test]
fn attentions() {
    // More queries than a block of them.
    for (tokens, heads) in [(11, 4), (130, 2)] {
        let qkv = random(&[2, tokens, 3 * 8], 1);
        agree(
            "self-attention",
            &[&qkv],
            &[],
            |pass| self_attention(&qkv, heads, None, pass),
            |_| attention::plain(&qkv.narrow(2, 0, 8)?, &qkv.narrow(2, 8, 16)?, heads, None),
        );
        let (queries, kv) = (random(&[2, 70, 8], 2), random(&[2, tokens, 16], 3));
        agree(
            "attention",
            &[&queries, &kv],
            &[],
            |pass| attention(&queries, &kv, heads, None, pass),
            |_| attention::plain(&queries, &kv, heads, None),
        );
        differentiates("self-attention with dropout", &qkv, |qkv, pass| {
            self_attention(qkv, heads, pass.dropout(0.3, heads * tokens * tokens), pass)
        });
        differentiates("attention with dropout", &kv, |kv, pass| {
            attention(&queries, kv, heads, pass.dropout(0.3, heads * 70 * tokens), pass)
        });
    }
}

#[test]
fn sparse_attentions() {
    // Fewer keys than are worth a product for each drawn pair, and more.
    for (tokens, heads, masked, mixed) in [(11, 4, true, true), (30, 2, true, false), (600, 2, false, false)] {
        let qkv = random(&[2, tokens, 3 * 8], 1);
        let samples = Samples::draw(tokens, tokens, 7, 5);
        let how = ProbSparse { heads, active: 6, masked, mixed, samples };
        agree(
            "sparse self-attention",
            &[&qkv],
            &[],
            |pass| how.to_itself(&qkv, pass),
            |_| how.plain(&qkv.narrow(2, 0, 8)?, &qkv.narrow(2, 8, 16)?),
        );
    }
    let (queries, kv) = (random(&[2, 13, 8], 2), random(&[2, 29, 16], 3));
    let how = ProbSparse { heads: 2, active: 4, masked: false, mixed: true, samples: Samples::draw(13, 29, 9, 6) };
    let plain = |_: &Pass| how.plain(&queries, &kv);
    agree("sparse attention", &[&queries, &kv], &[], |pass| how.to_others(&queries, &kv, pass), plain);
}

#[test]
fn where_all_queries_attend_sparse_attention_is_attention() {
    let (queries, kv) = (random(&[2, 13, 8], 2), random(&[2, 29, 16], 3));
    let how = ProbSparse { heads: 2, active: 13, masked: false, mixed: false, samples: Samples::draw(13, 29, 9, 6) };
    let sparse = how.to_others(&queries, &kv, &Pass::inference()).unwrap();
    close(&values(&sparse), &values(&attention::plain(&queries, &kv, 2, None).unwrap()), 3e-6, "all attend");
}

#[test]
fn queries_that_do_not_attend_take_what_costs_nothing() {
    let qkv = random(&[1, 20, 3 * 4], 1);
    let v: Vec<Vec<f32>> = qkv.narrow(2, 8, 4).unwrap().squeeze(0).unwrap().to_vec2().unwrap();
    let mut so_far = vec![0.0; 4];
    let sums: Vec<Vec<f32>> = v
        .iter()
        .map(|row| {
            so_far.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            so_far.clone()
        })
        .collect();
    for masked in [false, true] {
        let how = ProbSparse { heads: 1, active: 5, masked, mixed: false, samples: Samples::draw(20, 20, 5, 6) };
        let out: Vec<Vec<f32>> =
            how.to_itself(&qkv, &Pass::inference()).unwrap().squeeze(0).unwrap().to_vec2().unwrap();
        let near = |row: &[f32], other: &[f32], factor: f32| {
            row.iter().zip(other).all(|(row, other)| (row - factor * other).abs() < 1e-5)
        };
        let passive = out.iter().zip(&sums).filter(|(row, sum)| match masked {
            true => near(row, sum, 1.0),
            false => near(row, &sums[19], 1.0 / 20.0),
        });
        // The first step sees itself alone, which is its attention and its sum alike.
        let expected = 15..=if masked { 16 } else { 15 };
        let count = passive.count();
        assert!(expected.contains(&count), "masked {masked}: {count}");
    }
}

// Three steps, two heads of width 2: element (t, j) is number 4 t + j of [head, step, width].
#[test]
fn mixed_heads_lie_as_the_published_code_leaves_them() {
    let qkv = random(&[1, 3, 3 * 4], 1);
    let how = |mixed| ProbSparse { heads: 2, active: 3, masked: false, mixed, samples: Samples::draw(3, 3, 3, 6) };
    let out = |mixed| values(&how(mixed).to_itself(&qkv, &Pass::inference()).unwrap());
    let (straight, mixed) = (out(false), out(true));
    for (at, value) in mixed.iter().enumerate() {
        let (head, step, channel) = (at / 6, at % 6 / 2, at % 2);
        assert_eq!(*value, straight[step * 4 + head * 2 + channel], "element {at}");
    }
}

#[test]
fn causal_attentions() {
    // Heads narrower than a vector, as wide and wider; one token, which looks at itself.
    for (tokens, d_model, heads) in [(7, 64, 2), (4, 32, 2), (5, 12, 4), (1, 8, 2)] {
        let qkv = random(&[3, tokens, 3 * d_model], 1);
        let per_window = heads * tokens * tokens;
        agree(
            "causal attention",
            &[&qkv],
            &[],
            |pass| causal_attention(&qkv, tokens, heads, None, pass),
            |_| causal_attention::plain(&qkv, tokens, heads, None),
        );
        let dropped = |of: &dyn Fn(Option<Dropout>, &Pass) -> Result<Tensor>| {
            let pass = Pass::training(Sink::default(), 7, 2);
            let out = of(pass.dropout(0.3, per_window), &pass).unwrap();
            let store = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            (values(&out), values(store.get(&qkv).unwrap()))
        };
        let (fused, slopes) = dropped(&|dropout, pass| causal_attention(&qkv, tokens, heads, dropout, pass));
        let (plain, plain_slopes) = dropped(&|dropout, _| causal_attention::plain(&qkv, tokens, heads, dropout));
        close(&fused, &plain, 3e-6, "causal attention with dropout");
        close(&slopes, &plain_slopes, 2e-5, "its gradient");
        let of = |pass: &Pass| values(&causal_attention(&qkv, tokens, heads, None, pass).unwrap());
        assert_eq!(of(&Pass::inference()), of(&Pass::inference().on_all_threads()));
        let of_one_window = qkv.reshape((1, 3 * tokens, 3 * d_model)).unwrap();
        let of_one_window = causal_attention(&of_one_window, tokens, heads, None, &Pass::inference()).unwrap();
        assert_eq!(values(&of_one_window), of(&Pass::inference()));
        differentiates("causal attention with dropout", &qkv, |qkv, pass| {
            causal_attention(qkv, tokens, heads, pass.dropout(0.3, per_window), pass)
        });
    }
}

#[test]
fn batch_norms() {
    let x = random(&[3, 7, 5], 1);
    let norm = weights().batch_norm("norm", 5).unwrap();
    norm.affine.weight.set(&[0.5, 1.0, -1.5, 2.0, 1.1]).unwrap();
    norm.affine.bias.set(&[0.5, 0.0, -0.5, 1.0, 0.1]).unwrap();
    let run = |of: &dyn Fn(&Pass) -> Result<Tensor>| {
        let sink = Sink::default();
        let out = of(&Pass::training(sink.clone(), 7, 0)).unwrap();
        let store = (&out * random(out.dims(), 99).as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let sink = sink.lock();
        let of_weight = |weight: &Weight| {
            sink.get(weight).map(<[f32]>::to_vec).unwrap_or_else(|| values(store.get(weight.tensor()).unwrap()))
        };
        let noted: Vec<Vec<f32>> = sink.noted().iter().map(|(_, values)| values.clone()).collect();
        let gradients = [values(store.get(&x).unwrap()), of_weight(&norm.affine.weight), of_weight(&norm.affine.bias)];
        (values(&out), gradients, noted)
    };
    let (out, gradients, noted) = run(&|pass| batch_norm(&x, &norm, pass));
    let (plain_out, plain_gradients, plain_noted) = run(&|pass| batch_norm::plain(&x, &norm, pass));
    close(&out, &plain_out, 3e-6, "batch norm");
    gradients.iter().zip(&plain_gradients).for_each(|(fused, plain)| close(fused, plain, 2e-5, "its gradients"));
    assert_eq!(noted.len(), 2);
    noted.iter().zip(&plain_noted).for_each(|(fused, plain)| close(fused, plain, 3e-6, "running statistics"));
    // The map is what the running statistics do.
    norm.mean.set(&noted[0]).unwrap();
    norm.variance.set(&noted[1]).unwrap();
    let (factors, shifts) = norm.map().unwrap();
    let normal = values(&batch_norm::by_running_statistics(&x, &norm, &Pass::inference()).unwrap());
    for (at, (x, normal)) in values(&x).iter().zip(&normal).enumerate() {
        assert!((x * factors[at % 5] + shifts[at % 5] - normal).abs() < 1e-5, "{at}");
    }
}

#[test]
fn parts() {
    let x = random(&[3, 6, 5], 1);
    for rows in [0..4, 2..6, 1..2] {
        agree("part", &[&x], &[], |pass| part(&x, rows.clone(), pass), |_| part::plain(&x, rows.clone()));
    }
    assert!(part(&x, 4..7, &Pass::inference()).is_err());
}

#[test]
fn variates_are_scaled_and_shifted() {
    let weights = weights();
    let of = |name| weights.trained(name, &[3], Init::Normal(1.0)).unwrap();
    let affine = PerVariate { scale: of("scale"), shift: of("shift") };
    affine.scale.set(&[0.5, 1.5, -0.7]).unwrap();
    let both = [&affine.scale, &affine.shift];
    for windows in [1, 2] {
        let x = random(&[windows, 3, 37], 1);
        agree("there", &[&x], &both, |pass| affine.apply(&x, pass), |pass| affine.plain(&x, Way::There, pass));
        agree("back", &[&x], &both, |pass| affine.undo(&x, pass), |pass| affine.plain(&x, Way::Back, pass));
    }
}

#[test]
fn halves() {
    for time in [1, 2, 7, 8] {
        let x = random(&[2, time, 5], 1);
        agree("halve", &[&x], &[], |pass| halve(&x, pass), |_| halve::plain(&x));
        assert_eq!(halve(&x, &Pass::inference()).unwrap().dims(), [2, time.div_ceil(2), 5]);
    }
}

#[test]
fn neighbouring_steps() {
    for (time, padding) in [(6, 1), (5, 2), (1, 1)] {
        let x = random(&[2, time, 4], 1);
        agree("neighbours", &[&x], &[], |pass| neighbours(&x, padding, pass), |_| neighbours::plain(&x, padding));
    }
}

#[test]
fn max_pools() {
    for (time, rate) in [(24, 8), (24, 2), (6, 3), (6, 6)] {
        let x = random(&[2, 3, time], 1);
        agree("max-pool", &[&x], &[], |pass| max_pool(&x, rate, pass), |_| max_pool::plain(&x, rate));
    }
    // Equal ones: the first is the largest.
    let x = Var::from_vec(vec![1f32, 3.0, 3.0, 2.0, 0.0, 0.0], (1, 6), &Device::Cpu).unwrap();
    let gradient = |out: Tensor| values(out.sum_all().unwrap().backward().unwrap().get(&x).unwrap());
    let expected = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0];
    assert_eq!(gradient(max_pool(&x, 3, &Pass::training(Sink::default(), 1, 0)).unwrap()), expected);
    assert_eq!(gradient(max_pool::plain(&x, 3).unwrap()), expected);
    assert!(max_pool(&x, 4, &Pass::inference()).is_err());
}

#[test]
fn frozen_weights_get_no_gradient_and_stop_none() {
    let weights = weights();
    let map = weights.linear("map", 5, 5).unwrap();
    let affine = affine(&weights.at("norm"), 5);
    // Not on the tape: what is trained has to put itself there.
    let x = random(&[4, 5], 1).as_detached_tensor();
    for (only, expected) in [
        ("map.weight", vec!["map.weight"]),
        ("map.bias", vec!["map.bias"]),
        ("norm.", vec!["norm.bias", "norm.weight"]),
        ("weight", vec!["map.weight", "norm.weight"]),
    ] {
        weights.train_only(&[only.to_string()]).unwrap();
        for sum in [false, true] {
            let sink = Sink::default();
            let pass = Pass::training(sink.clone(), 1, 0);
            let z = linear(&x, std::slice::from_ref(&map), &pass).unwrap();
            let out = if sum { add_norm(&z, &x, &affine, None, &pass) } else { norm(&z, &affine, &pass) };
            let store = (out.unwrap().sqr().unwrap() * random(&[4, 5], 2).as_tensor()).unwrap().backward().unwrap();
            let all = weights.all();
            assert!(all.iter().all(|(_, weight)| store.get(weight.tensor()).is_none()));
            let found = all.iter().filter(|(_, weight)| sink.lock().get(weight).is_some());
            assert_eq!(found.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn moving_averages() {
    for (time, width) in [(40, 25), (9, 3), (5, 25), (6, 1)] {
        let x = random(&[2, 3, time], 1);
        let plain = |_: &Pass| moving_average::plain(&x, width);
        agree("moving average", &[&x], &[], |pass| moving_average(&x, width, pass), plain);
        differentiates("moving average", &x, |x, pass| moving_average(x, width, pass));
    }
}

#[test]
fn decompositions() {
    for (time, steps) in [(40, 25), (9, 3), (5, 25), (1, 3)] {
        let (x, branch) = (random(&[2, time, 5], 1), random(&[2, time, 5], 2));
        for component in [Component::Trend, Component::Seasonal] {
            agree(
                "decomposition",
                &[&x],
                &[],
                |pass| decompose(&x, component, steps, pass),
                |_| decomposition::plain(&x, component, steps),
            );
            agree(
                "decomposition of a sum",
                &[&x, &branch],
                &[],
                |pass| add_decompose(&x, &branch, component, steps, None, pass),
                |_| decomposition::plain(&(x.as_tensor() + branch.as_tensor())?, component, steps),
            );
        }
        // All that is left, and what is averaged, is the sum.
        let part = |component| {
            let pass = Pass::training(Sink::default(), 7, 0);
            let mask = pass.dropout(0.3, time * 5);
            values(&add_decompose(&x, &branch, component, steps, mask, &pass).unwrap())
        };
        let pass = Pass::training(Sink::default(), 7, 0);
        let sum = (x.as_tensor() + dropout::plain(&branch, pass.dropout(0.3, time * 5)).unwrap()).unwrap();
        let parts = part(Component::Trend).into_iter().zip(part(Component::Seasonal));
        let both: Vec<f32> = parts.map(|(trend, seasonal)| trend + seasonal).collect();
        close(&both, &values(&sum), 3e-6, "both components");
        differentiates("decomposition with dropout", &branch, |branch, pass| {
            add_decompose(&x, branch, Component::Seasonal, steps, pass.dropout(0.3, time * 5), pass)
        });
    }
}

#[test]
fn feed_forwards() {
    let weights = weights();
    let inner = weights.pointwise("inner", 5, 12).unwrap();
    let without_bias = Map { weight: weights.linear("outer", 12, 4).unwrap().weight, bias: None };
    for activation in [Activation::Gelu, Activation::Relu] {
        let maps = TwoMaps { inner: inner.clone(), outer: without_bias.clone(), activation };
        let x = random(&[2, 7, 5], 1);
        let all: Vec<&Weight> = [&inner.weight, inner.bias.as_ref().unwrap(), &without_bias.weight].into();
        agree(
            "feed-forward",
            &[&x],
            &all,
            |pass| feed_forward(&x, &maps, None, pass),
            |pass| feed_forward::plain(&x, &maps, None, pass),
        );
    }
    let maps = TwoMaps { inner, outer: without_bias, activation: Activation::Gelu };
    let x = random(&[2, 7, 5], 1);
    let on = |threads: bool, plain: bool| {
        let pass = Pass::training(Sink::default(), 7, 0);
        let pass = if threads { pass.on_all_threads() } else { pass };
        let mask = pass.dropout(0.3, 7 * 12);
        let out =
            if plain { feed_forward::plain(&x, &maps, mask, &pass) } else { feed_forward(&x, &maps, mask, &pass) };
        values(&out.unwrap())
    };
    close(&on(false, false), &on(false, true), 3e-6, "feed-forward with dropout");
    assert_eq!(on(false, false), on(true, false), "on all threads");
    differentiates("feed-forward with dropout", &x, |x, pass| feed_forward(x, &maps, pass.dropout(0.3, 7 * 12), pass));
}

#[test]
fn auto_correlations() {
    // Keys as long as the queries, shorter and longer.
    for others in [12, 7, 15] {
        let queries = random(&[3, 12, 6], 1);
        let (keys, held) = (random(&[3, others, 6], 2), random(&[3, others, 6], 3));
        for lags in [Lags::Window, Lags::Batch] {
            let run = |pass: &Pass| auto_correlation(&queries, &keys, &held, 4, lags, pass);
            let plain = |_: &Pass| auto_correlation::plain(&queries, &keys, &held, 4, lags);
            let train =
                |of: &dyn Fn(&Pass) -> Result<Tensor>| values(&of(&Pass::training(Sink::default(), 1, 0)).unwrap());
            close(&train(&run), &train(&plain), 3e-6, "auto-correlation in training");
            let shared = Pass::training(Sink::default(), 1, 0).on_all_threads();
            assert_eq!(values(&run(&shared).unwrap()), train(&run));
            if lags == Lags::Window {
                agree("auto-correlation", &[&queries, &keys, &held], &[], run, plain);
            }
        }
        differentiates("auto-correlation", &keys, |keys, pass| {
            auto_correlation(&queries, keys, &held, 4, Lags::Window, pass)
        });
    }
}

#[test]
fn mixing_of_variates() {
    let weights = weights();
    let weight = weights.trained("weight_mat", &[1, 6, 6], Init::IdentityPlusNormal).unwrap();
    agree(
        "normalised softplus",
        &[],
        &[&weight],
        |pass| normalised_softplus(&weight, pass),
        |pass| mixing::plain_softplus(&pass.tensor(&weight)),
    );
    let (matrix, x) = (random(&[1, 6, 6], 1), random(&[3, 6, 10], 2));
    agree(
        "mix",
        &[&matrix, &x],
        &[],
        |pass| mix(&matrix, &x, pass),
        |_| matrix.broadcast_as((3, 6, 6))?.contiguous()?.matmul(&x),
    );
    differentiates("mix", &x, |x, pass| mix(&matrix, x, pass));
}

#[test]
fn folded_copies() {
    let weights = weights();
    let weight = weights.trained("weight", &[5, 3 * 7], Init::Normal(1.0)).unwrap();
    let factors = weights.trained("factors", &[1, 3], Init::Normal(1.0)).unwrap();
    agree(
        "folded copies",
        &[],
        &[&weight, &factors],
        |pass| fold_copies(&weight, &factors, pass),
        |pass| copies::plain(&pass.tensor(&weight), &pass.tensor(&factors)),
    );
}

#[test]
fn fixed_transforms() {
    let (matrix, x) = (random(&[7, 7], 1).as_detached_tensor(), random(&[3, 2, 7], 2));
    let plain = |_: &Pass| x.broadcast_matmul(&matrix);
    agree("transform", &[&x], &[], |pass| transform::transform(&x, &matrix, pass), plain);
    let weights = weights();
    let delta = weights.trained("delta", &[1, 5, 1, 7], Init::Normal(1.0)).unwrap();
    let x = random(&[2, 5, 3 * 7], 3);
    agree(
        "transform back",
        &[&x],
        &[&delta],
        |pass| transform::transform_back(&x, &matrix, &delta, pass),
        |pass| transform::plain_back(&x, &matrix, &pass.tensor(&delta)),
    );
}

#[test]
fn products_on_the_tape() {
    let (a, b, c) = (random(&[3, 2, 7], 1), random(&[7, 5], 2), random(&[5, 7], 3));
    agree("times", &[&a, &b], &[], |pass| times(&a, &b, pass), |_| a.reshape((6, 7))?.matmul(&b)?.reshape((3, 2, 5)));
    agree(
        "times transposed",
        &[&a, &c],
        &[],
        |pass| times_transposed(&a, &c, pass),
        |_| a.reshape((6, 7))?.matmul(&c.t()?)?.reshape((3, 2, 5)),
    );
    let bias = random(&[2, 5], 4);
    agree(
        "mapped",
        &[&a, &c, &bias],
        &[],
        |pass| mapped(&a, &c, &bias, pass),
        |_| a.reshape((6, 7))?.matmul(&c.t()?)?.reshape((3, 2, 5))?.broadcast_add(&bias),
    );
}

#[test]
fn losses() {
    let (forecast, target) = (random(&[2, 3, 8], 1), random(&[2, 3, 8], 2).as_detached_tensor());
    for loss in [Loss::Mse, Loss::L1, Loss::WeightedL1] {
        let on_tape = loss.on_tape(&forecast, &target, 48, &Pass::inference()).unwrap();
        let plain = loss.plain(&forecast, &target, 48).unwrap();
        close(&values(&on_tape), &values(&plain), 1e-6, "loss");
        let gradient = |of: &Tensor| values(of.backward().unwrap().get(&forecast).unwrap());
        close(&gradient(&on_tape), &gradient(&plain), 1e-6, "loss gradient");
        let sum = loss.sum(&values(&forecast), &values(&target), 8) / 48.0;
        assert!((sum - f64::from(values(&plain)[0])).abs() < 1e-6);
    }
}
