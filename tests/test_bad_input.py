"""Bad input: an error that says what was given, what is needed and what to do; nothing is changed."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
from reference import polar
from reference import seeded as gaussian

import landingopt as lo

TARGET = gaussian(0, (6, 4))
START = polar(gaussian(1, (6, 4)))
SQUARE = lo.problems.Procrustes.random(5, rng=0)
SQUARE_START = lo.stiefel.random(5, rng=1)


def fun(x):
    return 0.5 * np.sum((x - TARGET) ** 2)


def grad(x):
    return x - TARGET


PROBLEM = lo.Objective(fun, grad, shape=(6, 4))


def refused(*told, kind=(TypeError, ValueError)):
    """The error's message holds every one of the texts."""

    class Refused:
        def __enter__(self):
            return self

        def __exit__(self, error_type, error, traceback):
            assert error is not None, f"no error; expected {told}"
            if not isinstance(error, kind):
                return False
            message = " ".join(str(error).split())
            for text in told:
                assert text in message, f"{text!r} is not said in {message!r}"
            return True

    return Refused()


# -- the start ----------------------------------------------------------------------------------


def test_the_transposed_start():
    with refused("(4, 6)", "(6, 4)", "transposed", "x0.T", kind=ValueError):
        lo.minimize(PROBLEM, START.T)


def test_the_transposed_stack():
    problem = lo.problems.Procrustes.random(4, 6, stack=(3,), rng=0)
    with refused("(3, 4, 6)", "(3, 6, 4)", "swap the last two axes", kind=ValueError):
        lo.minimize(problem, np.zeros((3, 4, 6)))


@pytest.mark.parametrize("shape", [(6,), (6, 5), (2, 6, 4), (24,), ()])
def test_a_start_of_another_shape(shape):
    with refused(f"x0 has shape {shape}", "needs (6, 4)", kind=ValueError):
        lo.minimize(PROBLEM, np.ones(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_start_that_is_not_finite(value):
    x0 = START.copy()
    x0[1, 2] = x0[3, 0] = value
    with refused("x0", "2 entries", "not finite", kind=ValueError):
        lo.minimize(PROBLEM, x0)


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "float16", "longdouble"])
def test_a_start_of_a_dtype_that_is_not_solved_in(dtype):
    x0 = np.eye(6, 4).astype(dtype)
    with refused("x0", str(x0.dtype), "float64", "cast", kind=TypeError):
        lo.minimize(PROBLEM, x0)


@pytest.mark.parametrize("x0", [START.tolist(), 1.0, 3, tuple(START)])
def test_a_start_that_is_no_array(x0):
    with refused("array", type(x0).__name__, "numpy.asarray", kind=TypeError):
        lo.minimize(PROBLEM, x0)


@pytest.mark.parametrize("x0", [{"x": START}, "x0", object()])
def test_a_start_that_is_something_else(x0):
    with refused("array", type(x0).__name__, kind=TypeError):
        lo.minimize(PROBLEM, x0)


@pytest.mark.parametrize(
    "x0",
    [
        np.ones((6, 4)),
        np.zeros((6, 4)),
        np.eye(6, 4) * [1, 1, 1, 0],
        np.eye(6, 4)[:, [0, 1, 2, 2]],
        gaussian(0, (6, 3)) @ gaussian(1, (3, 4)),
    ],
    ids=["ones", "zeros", "zero column", "equal columns", "product"],
)
def test_a_start_without_full_rank(x0):
    with refused("x0", "(6, 4)", "full rank", "lo.stiefel.random", kind=ValueError):
        lo.minimize(PROBLEM, x0)


@pytest.mark.parametrize("factor", [1.5, 1.3, 0.1])
def test_a_start_off_the_tube_of_a_fixed_step(factor):
    distance = abs(factor**2 - 1) * 2
    with refused(
        f"{distance:.3g}", "eps = 0.5", "lo.stiefel.polar(x0)", "lo.landing()", kind=ValueError
    ):
        lo.minimize(PROBLEM, factor * START, lo.landing(step=0.1))


def test_a_start_just_inside_the_tube_is_taken():
    inside = START * np.sqrt(1 + 0.5 * 0.499)
    assert lo.minimize(PROBLEM, inside, lo.landing(step=0.02)).success


# -- libraries and devices ----------------------------------------------------------------------


def strict(values, device="CPU_DEVICE"):
    return array_api_strict.asarray(values, device=array_api_strict.Device(device))


def strict_problem(device="CPU_DEVICE", **changed):
    target = strict(TARGET, device)

    def fun(x):
        return 0.5 * array_api_strict.sum((x - target) ** 2)

    functions = {"fun": fun, "grad": lambda x: x - target} | changed
    return lo.Objective(shape=(6, 4), **functions)


def test_a_gradient_on_another_device():
    elsewhere = strict(TARGET, "device1")
    problem = strict_problem(grad=lambda x: elsewhere)
    with refused("the gradient", "device1", "CPU_DEVICE", "same library and device"):
        lo.minimize(problem, strict(START))


def test_a_gradient_of_another_library():
    with refused("the gradient", "numpy.ndarray", "array_api_strict", kind=TypeError):
        lo.minimize(strict_problem(grad=lambda x: TARGET), strict(START))
    problem = lo.Objective(fun, lambda x: strict(x - TARGET), shape=(6, 4))
    with refused("the gradient", "array_api_strict", "numpy", kind=TypeError):
        lo.minimize(problem, START)


def test_a_start_on_another_device_than_the_data():
    problem = lo.problems.Procrustes(strict(SQUARE.A, "device1"), strict(SQUARE.B, "device1"))
    with refused("device1", "CPU_DEVICE", "convert", kind=TypeError):
        lo.minimize(problem, strict(SQUARE_START))


def test_a_start_of_another_library_than_the_data():
    torch = pytest.importorskip("torch")
    with refused("torch", "numpy", "convert", kind=TypeError):
        lo.minimize(SQUARE, torch.from_numpy(SQUARE_START))
    problem = lo.problems.Procrustes(torch.from_numpy(SQUARE.A), torch.from_numpy(SQUARE.B))
    with refused("torch", "numpy", "convert", kind=TypeError):
        lo.minimize(problem, SQUARE_START)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_a_start_of_another_dtype_than_the_data(dtype):
    with refused(dtype, "float64", "cast", kind=TypeError):
        lo.minimize(SQUARE, SQUARE_START.astype(dtype))


def test_blocks_of_two_dtypes():
    problem, x0 = product()
    x0["b"] = x0["b"].astype("float32")
    with refused("blocks", "float64", "float32", "share", kind=TypeError):
        lo.minimize(problem, x0)


def test_jax_arrays_are_refused_with_the_way_to_go():
    jax = pytest.importorskip("jax")
    with refused("JAX", "lo.autodiff.jax", kind=TypeError):
        lo.minimize(PROBLEM, jax.numpy.asarray(START))


# -- what the user's functions return -----------------------------------------------------------

METHODS = [lo.landing(), lo.landing(step=0.01)]


@pytest.mark.parametrize("method", METHODS, ids=["line search", "fixed step"])
@pytest.mark.parametrize("late", [False, True], ids=["first call", "third call"])
@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda x: (x - TARGET).T, ("(4, 6)", "(6, 4)", "same")),
        (lambda x: np.sum(x), ("()", "(6, 4)")),
        (lambda x: (x - TARGET)[None], ("(1, 6, 4)", "(6, 4)")),
        (lambda x: None, ("must be an array", "NoneType")),
        (lambda x: (x - TARGET).tolist(), ("must be an array", "list")),
        (lambda x: (x - TARGET).astype("longdouble"), (str(np.dtype("longdouble")), "float64")),
        (lambda x: (x - TARGET).astype("complex128"), ("complex128", "float64")),
        (lambda x: (x - TARGET).astype("float32"), ("float32", "float64", "astype")),
        (lambda x: np.ones((6, 4), dtype=int), ("int64", "astype('float64')")),
    ],
)
def test_a_wrong_kind_of_gradient(returned, told, late, method):
    calls = []

    def bad(x):
        calls.append(1)
        return grad(x) if late and len(calls) < 3 else returned(x)

    with refused("the gradient", *told):
        lo.minimize(lo.Objective(fun, bad, shape=(6, 4)), START, method)


def test_a_gradient_of_a_wider_dtype_names_the_cast():
    with refused("float64", "float32", "astype('float32')", "x0", kind=TypeError):
        lo.minimize(PROBLEM, START.astype("float32"))


@pytest.mark.parametrize("late", [False, True], ids=["first call", "third call"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, ("None", "real number")),
        ("low", ("'low'", "real number")),
        ([1.0], ("[1.0]", "real number")),
        ({}, ("{}", "real number")),
        (1.0 + 2.0j, ("complex", "real part")),
        (np.complex128(1j), ("complex", "real part")),
        (np.ones((1, 1)), ("(1, 1)", "()")),
        (np.ones(4), ("(4,)", "()")),
        (np.ones((6, 4)), ("(6, 4)", "()")),
    ],
    ids=str,
)
def test_a_wrong_kind_of_value(value, told, late):
    calls = []

    def bad(x):
        calls.append(1)
        return fun(x) if late and len(calls) < 3 else value

    with refused("fun returned", *told):
        lo.minimize(lo.Objective(bad, grad, shape=(6, 4)), START)


@pytest.mark.parametrize("value", [1, np.int64(1), np.float32(1), np.array(1.0), True])
def test_any_real_number_is_a_value(value):
    problem = lo.Objective(lambda x: value, lambda x: np.zeros_like(x), shape=(6, 4))
    result = lo.minimize(problem, START)
    assert result.fun == 1.0
    assert type(result.fun) is float


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1,), (3, 6, 4)])
def test_values_of_a_stack_have_its_shape(shape):
    problem = lo.Objective(lambda x: np.ones(shape), lambda x: x, shape=(3, 6, 4))
    with refused(str(shape), "() or (3,)", "each matrix", kind=ValueError):
        lo.minimize(problem, polar(gaussian(0, (3, 6, 4))))


def test_a_stack_may_not_change_its_mind():
    calls = []

    def changing(x):
        calls.append(1)
        values = 0.5 * np.sum(x**2 * np.arange(1.0, 7.0)[:, None], axis=(-2, -1))
        return values if len(calls) < 4 else np.sum(values)

    problem = lo.Objective(changing, lambda x: x * np.arange(1.0, 7.0)[:, None], shape=(3, 6, 4))
    with refused("fun returned", "()", "(3,)", kind=ValueError):
        lo.minimize(problem, polar(gaussian(0, (3, 6, 4))))


@pytest.mark.parametrize(
    "returned", [lambda x: fun(x), lambda x: (fun(x), grad(x), 0), lambda x: None]
)
def test_value_and_gradient_is_a_pair(returned):
    problem = lo.Objective(value_and_gradient=returned, shape=(6, 4))
    for method in METHODS:
        with refused("value_and_gradient", "pair (f, G)", kind=TypeError):
            lo.minimize(problem, START, method)


# -- products -----------------------------------------------------------------------------------


def product(**changed):
    functions = {
        "fun": lambda x: fun(x["w"]) + 0.5 * float(np.sum(x["b"] ** 2)),
        "grad": lambda x: {"w": grad(x["w"]), "b": x["b"]},
    } | changed
    problem = lo.Objective(
        shape={"w": (6, 4), "b": (3,)},
        constraint={"w": lo.Stiefel(), "b": lo.Euclidean()},
        **functions,
    )
    return problem, {"w": START, "b": np.ones(3)}


@pytest.mark.parametrize(
    ("x0", "told"),
    [
        ({"w": START}, ("dict", "['w', 'b']", "['w']")),
        ({"w": START, "b": np.ones(3), "c": np.ones(3)}, ("dict", "['w', 'b', 'c']")),
        (START, ("dict", "array of shape (6, 4)")),
        ((START, np.ones(3)), ("dict", "tuple")),
    ],
)
def test_a_start_with_other_blocks(x0, told):
    with refused("x0", *told, kind=TypeError):
        lo.minimize(product()[0], x0)


@pytest.mark.parametrize("x0", [START, (START,), {"w": START, "b": START}])
def test_a_start_for_a_tuple_with_other_blocks(x0):
    problem = lo.Objective(
        fun, grad, shape=((6, 4), (3,)), constraint=(lo.Stiefel(), lo.Euclidean())
    )
    with refused("x0 must be a tuple of 2 blocks", kind=TypeError):
        lo.minimize(problem, x0)


def test_a_block_of_another_shape():
    problem, x0 = product()
    x0["w"] = START.T
    with refused("(4, 6)", "(6, 4)", kind=ValueError):
        lo.minimize(problem, x0)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda x: {"w": grad(x["w"])}, ("dict", "['w', 'b']")),
        (lambda x: {"w": grad(x["w"]), "c": x["b"]}, ("['c', 'w']", "['b', 'w']")),
        (lambda x: (grad(x["w"]), x["b"]), ("dict", "tuple")),
        (lambda x: grad(x["w"]), ("dict", "ndarray")),
        (lambda x: {"w": grad(x["w"]), "b": x["b"][:2]}, ("'b'", "(2,)", "(3,)")),
        (lambda x: {"w": grad(x["w"]).T, "b": x["b"]}, ("'w'", "(4, 6)", "(6, 4)")),
    ],
)
def test_a_gradient_with_other_blocks(returned, told):
    problem, x0 = product(grad=returned)
    with refused("the gradient", *told):
        lo.minimize(problem, x0)


# -- problems -----------------------------------------------------------------------------------


def test_a_bare_function_gets_the_line_to_write():
    with refused("problem = lo.Objective(fun, grad, shape=(6, 4))", "lo.minimize(problem, x0)",
                 "lo.autodiff", kind=TypeError):  # fmt: skip
        lo.minimize(fun, START)
    with refused("lo.Objective(fun, grad, shape=(n, p))", kind=TypeError):
        lo.minimize(fun)


def test_the_line_to_write_works():
    x0 = START
    problem = lo.Objective(fun, grad, shape=(6, 4))
    assert lo.minimize(problem, x0).success


@pytest.mark.parametrize("problem", [None, 3, "procrustes", START, {"fun": fun}])
def test_what_is_no_problem(problem):
    with refused("not a problem", type(problem).__name__, "lo.Objective", kind=TypeError):
        lo.minimize(problem, START)


def test_a_class_is_no_problem():
    with refused("instance", "Procrustes is a class", kind=TypeError):
        lo.minimize(lo.problems.Procrustes, START)


@pytest.mark.parametrize("component", [None, "both"])
def test_a_method_that_reads_f_needs_it(component):
    problem = lo.Objective(grad=SQUARE.grad, shape=(5, 5))
    with refused("no fun", "lo.Objective", kind=TypeError):
        lo.minimize(problem, SQUARE_START, component=component)
    result = lo.minimize(problem, SQUARE_START, lo.landing(step=0.01))
    assert result.success
    assert np.isnan(result.fun)
    assert np.isnan(result.feasible_fun)
    assert result.nfev == 0


def test_both_components_cannot_be_compared_without_f():
    problem = lo.Objective(grad=SQUARE.grad, shape=(5, 5))
    with refused('component="both"', "no fun", "component=+1 or -1", kind=TypeError):
        lo.minimize(problem, SQUARE_START, lo.landing(step=0.01), component="both")


# -- methods ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["landing", "ConjugateGradient", ""])
def test_a_string_is_no_method(method):
    with refused(repr(method), "lo.landing()", "method object", kind=TypeError):
        lo.minimize(PROBLEM, START, method)


@pytest.mark.parametrize("method", [lo.landing, lo.Method])
def test_a_method_is_called(method):
    with refused("call it", f"lo.{method.__name__}(...)", kind=TypeError):
        lo.minimize(PROBLEM, START, method)


@pytest.mark.parametrize("method", [3, 0.1, {"step": 0.1}, lo.steps.Constant(0.1)])
def test_what_is_no_method(method):
    with refused("method", "lo.landing()", kind=TypeError):
        lo.minimize(PROBLEM, START, method)


@pytest.mark.parametrize("step", [-0.1, 0.0, 0, np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_positive(step):
    with refused("step must be positive and finite", f"{step:g}", kind=ValueError):
        lo.landing(step=step)


@pytest.mark.parametrize("step", ["0.1", "auto", [0.1, 0.2], {}, True, np.ones(2), 1j])
def test_a_step_that_is_no_number(step):
    with refused("step must be a positive number", kind=TypeError):
        lo.landing(step=step)


def test_a_step_rule_is_an_instance():
    with refused("step", kind=TypeError):
        lo.landing(step=lo.steps.Constant)


@pytest.mark.parametrize("value", [-0.5, 0.0, np.nan])
def test_a_schedule_that_goes_wrong_in_mid_run(value):
    method = lo.landing(step=lambda k: 0.01 if k < 4 else value)
    with refused("iteration 4", "positive", f"{value:g}", kind=ValueError):
        lo.minimize(PROBLEM, START, method)


@pytest.mark.parametrize("value", [None, "0.1", np.ones(2)])
def test_a_schedule_that_returns_no_number(value):
    method = lo.landing(step=lambda k: 0.01 if k < 4 else value)
    with refused("iteration 4", "positive number", kind=TypeError):
        lo.minimize(PROBLEM, START, method)


@pytest.mark.parametrize("lam", [1.0, 0.0, 2])
def test_lam_without_a_step(lam):
    with refused(f"lam = {lam!r}", "without a step", "lo.landing(step=", kind=ValueError):
        lo.landing(lam=lam)


@pytest.mark.parametrize("lam", [-1.0, np.nan, np.inf, "1", [1.0]])
def test_a_lam_that_is_no_weight(lam):
    with refused("lam must be a number >= 0", repr(lam)):
        lo.landing(step=0.1, lam=lam)


@pytest.mark.parametrize("eps", [0.0, 1.0, -0.1, 2.0, np.nan, "0.5", None])
def test_an_eps_outside_its_range(eps):
    with refused("eps must", "between 0 and 1", repr(eps)):
        lo.landing(step=0.1, eps=eps)


def test_numbers_of_numpy_are_numbers():
    method = lo.landing(step=np.float32(0.125), lam=np.float32(0.5), eps=np.float64(0.5))
    assert method == lo.landing(step=0.125, lam=0.5)
    assert lo.minimize(PROBLEM, START, tol=np.float32(1e-5)).success


# -- keywords -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "told"),
    [
        ("toll", ("did you mean tol?",)),
        ("callbacks", ("did you mean callback?",)),
        ("on_fail", ("did you mean on_failure?",)),
        ("step", ("method=lo.landing(step=...)",)),
        ("lam", ("method=lo.landing(lam=...)",)),
        ("eps", ("method=lo.landing(eps=...)",)),
        ("maxiter", ("stop=lo.MaxIterations(...)",)),
        ("jac", ("lo.Objective(fun, grad, shape=...)",)),
        ("args", ()),
        ("zzz", ()),
    ],
)
def test_an_unknown_keyword(keyword, told):
    accepted = ("problem", "x0", "method", "tol", "stop", "record", "rng", "callback", "component",
                "progress", "on_failure")  # fmt: skip
    with refused(f"unknown keyword '{keyword}'", *accepted, *told, kind=TypeError):
        lo.minimize(PROBLEM, START, **{keyword: 1})


@pytest.mark.parametrize("value", ["Raise", "ignore", None, True])
def test_on_failure_is_one_of_two(value):
    with refused('"raise" or "return"', repr(value), kind=ValueError):
        lo.minimize(PROBLEM, START, on_failure=value)


@pytest.mark.parametrize("tol", [-1e-8, np.nan, np.inf, "1e-8", [1e-8]])
def test_a_tolerance_that_is_none(tol):
    with refused("tol must be a number >= 0", repr(tol)):
        lo.minimize(PROBLEM, START, tol=tol)


def test_tol_and_stop_together():
    with refused("tol", "stop=", "lo.GradientNorm(rtol=1e-08)", kind=ValueError):
        lo.minimize(PROBLEM, START, tol=1e-8, stop=lo.MaxIterations(3))


@pytest.mark.parametrize("stop", [5, 1e-8, "tol", lambda row: True, (lo.MaxIterations(3),)])
def test_what_is_no_stop_rule(stop):
    with refused("stop must be a stop rule", "lo.GradientNorm", kind=TypeError):
        lo.minimize(PROBLEM, START, stop=stop)


def test_a_class_is_no_stop_rule():
    with refused("lo.MaxIterations(...)", "instance", kind=TypeError):
        lo.minimize(PROBLEM, START, stop=lo.MaxIterations)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: lo.MaxIterations(-1), ("iterations", "-1")),
        (lambda: lo.MaxIterations(2.5), ("iterations", "integer", "2.5")),
        (lambda: lo.MaxIterations("5"), ("iterations", "'5'")),
        (lambda: lo.MaxIterations(True), ("iterations", "True")),
        (lambda: lo.MaxIterations(np.nan), ("iterations", "nan")),
        (lambda: lo.MaxEpochs(-1), ("epochs", "-1")),
        (lambda: lo.MaxEpochs("1"), ("epochs", "'1'")),
        (lambda: lo.Timeout(-1.0), ("seconds", "-1.0")),
        (lambda: lo.Timeout("5"), ("seconds", "'5'")),
        (lambda: lo.Timeout(np.nan), ("seconds", "nan")),
        (lambda: lo.GradientNorm(-1e-6), ("atol", "-1e-06")),
        (lambda: lo.GradientNorm(rtol=-1e-6), ("rtol", "-1e-06")),
        (lambda: lo.GradientNorm(rtol=np.inf), ("rtol", "inf")),
        (lambda: lo.GradientNorm("1e-6"), ("atol", "'1e-6'")),
        (lambda: lo.Distance(-1.0), ("atol", "-1.0")),
        (lambda: lo.Distance(None), ("atol", "None")),
        (lambda: lo.Target("low"), ("value", "'low'")),
        (lambda: lo.Target(np.nan), ("value", "nan")),
        (lambda: lo.Every(0), ("iterations", "0")),
        (lambda: lo.Every(2.5), ("iterations", "2.5")),
        (lambda: lo.Every("5"), ("iterations", "5")),
        (lambda: lo.LogSpaced(0), ("per_decade", "0")),
        (lambda: lo.Every(metrics={"fun": abs}), ("'fun'", "column")),
        (lambda: lo.Every(metrics={"m": 3.0}), ("'m'", "function", "3.0")),
        (lambda: lo.Every(metrics=abs), ("metrics", "dict")),
    ],
)  # fmt: skip
def test_a_rule_with_a_bad_number(make, told):
    with refused(*told):
        make()


@pytest.mark.parametrize("other", [5, None, "tol", lo.Every(3)])
def test_rules_join_with_rules(other):
    with pytest.raises(TypeError):
        lo.MaxIterations(3) | other
    with pytest.raises(TypeError):
        lo.MaxIterations(3) & other


@pytest.mark.parametrize("record", [10, "all", lo.Every, lo.MaxIterations(3)])
def test_what_is_no_record(record):
    with refused("record", "lo.Every(k)", kind=TypeError):
        lo.minimize(PROBLEM, START, record=record)


@pytest.mark.parametrize("callback", [3, "print", [print]])
def test_what_is_no_callback(callback):
    with refused("callback must be a function", kind=TypeError):
        lo.minimize(PROBLEM, START, callback=callback)


# -- components ---------------------------------------------------------------------------------


@pytest.mark.parametrize("component", [0, 2, -3, 0.5, "left", "+1", np.nan])
def test_a_component_that_there_is_not(component):
    with refused('+1, -1, "both"', str(component), kind=ValueError):
        lo.minimize(SQUARE, SQUARE_START, component=component)


@pytest.mark.parametrize("component", [1, -1, "both"])
def test_a_tall_matrix_has_no_components(component):
    with refused("(6, 4)", "connected", "drop component", kind=ValueError):
        lo.minimize(PROBLEM, START, component=component)


@pytest.mark.parametrize("component", [1, "both"])
def test_unitary_matrices_are_connected(component):
    problem = lo.problems.Procrustes.random(4, rng=0, dtype=np.complex128)
    with refused("complex128", "connected", kind=ValueError):
        lo.minimize(problem, rng=0, component=component)


def test_components_of_a_stack():
    problem = lo.problems.Procrustes.random(4, stack=(3,), rng=0)
    with refused("shape (2,)", "(3,)", kind=ValueError):
        lo.minimize(problem, rng=0, component=np.array([1, -1]))
    with refused('"both"', "one square matrix", "component=+1 or -1", kind=ValueError):
        lo.minimize(problem, rng=0, component="both")


@pytest.mark.parametrize("component", [1, "both"])
def test_components_of_a_product(component):
    problem, x0 = product()
    with refused("component", kind=ValueError):
        lo.minimize(problem, x0, component=component)


# -- nothing is changed -------------------------------------------------------------------------


def test_a_refused_call_evaluates_nothing_and_changes_nothing():
    calls = []

    def counting(x):
        calls.append(1)
        return fun(x)

    problem = lo.Objective(counting, grad, shape=(6, 4))
    x0 = 2 * START
    kept = x0.copy()
    generator = np.random.default_rng(0)
    state = generator.bit_generator.state
    for options in (
        {"tol": -1.0},
        {"on_failure": "x"},
        {"stop": 5},
        {"record": 5},
        {"callback": 5},
        {"component": 1},
        {"method": "landing"},
        {"toll": 1},
    ):
        with pytest.raises((TypeError, ValueError)):
            lo.minimize(problem, x0, rng=generator, **options)
    with pytest.raises(ValueError, match="tube"):
        lo.minimize(problem, x0, lo.landing(step=0.1), rng=generator)
    assert calls == []
    assert np.array_equal(x0, kept)
    assert generator.bit_generator.state == state
