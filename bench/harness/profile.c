/* Tells apart what each Python function executes: whenever one begins, goes on or ends, callgrind writes what was
   counted since, under its name. Only its own instructions count, with those of what is written in C that it calls. */
#define Py_BUILD_CORE
#include <Python.h>
#include <internal/pycore_ceval.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_interp.h>
#include <stdio.h>
#include <valgrind/callgrind.h>

static void note(char what, PyCodeObject *code) {
    char text[512];
    CALLGRIND_TOGGLE_COLLECT;
    snprintf(text, sizeof text, "%c %s|%s", what, PyUnicode_AsUTF8(code->co_filename),
             PyUnicode_AsUTF8(code->co_qualname));
    CALLGRIND_DUMP_STATS_AT(text);
    CALLGRIND_TOGGLE_COLLECT;
}

static PyObject *run(PyThreadState *thread, struct _PyInterpreterFrame *frame, int throws) {
#if PY_VERSION_HEX < 0x030C0000
    PyCodeObject *code = (PyCodeObject *)Py_NewRef(frame->f_code);
#else
    PyCodeObject *code = (PyCodeObject *)PyUnstable_InterpreterFrame_GetCode(frame);
#endif
    note('>', code);
    PyObject *result = _PyEval_EvalFrameDefault(thread, frame, throws);
    note('<', code);
    Py_DECREF(code);
    return result;
}

void start_counting(void) {
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Main(), run);
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void stop_counting(void) {
    CALLGRIND_DUMP_STATS_AT("end");
    CALLGRIND_STOP_INSTRUMENTATION;
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Main(), _PyEval_EvalFrameDefault);
}
