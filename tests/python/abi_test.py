"""_abi.py against the header: a C program says what the compiler makes of it."""
import ctypes
import os
import re
import tempfile
import unittest

from conclave import _abi, _library, errors
from support import SOURCE, run

API = os.path.join(SOURCE, "runtime", "api")
CONSTANTS = {
    "CONCLAVE_ABI_VERSION": _library.ABI_VERSION, "CONCLAVE_HOST_STATUS": errors.HOST_STATUS,
    "CONCLAVE_OK": _abi.OK, "CONCLAVE_ERROR_USAGE": errors.USAGE, "CONCLAVE_ERROR_BUSY": errors.BUSY,
    "CONCLAVE_FINISH_NONE": _abi.FINISH_REASONS.index(None),
    "CONCLAVE_FINISH_STOP": _abi.FINISH_REASONS.index("stop"),
    "CONCLAVE_FINISH_LENGTH": _abi.FINISH_REASONS.index("length"),
    "CONCLAVE_FINISH_CANCELLED": _abi.FINISH_REASONS.index("cancelled"),
    "CONCLAVE_LOG_DEBUG": 0, "CONCLAVE_LOG_ERROR": 3,
}
CLASSES = {
    "CONCLAVE_ERROR_USAGE": errors.UsageError, "CONCLAVE_ERROR_BAD_CONTENT": errors.BadContentError,
    "CONCLAVE_ERROR_MISSING_FILE": errors.MissingFileError,
    "CONCLAVE_ERROR_UNSUPPORTED": errors.UnsupportedError, "CONCLAVE_ERROR_RESOURCE": errors.ResourceError,
    "CONCLAVE_ERROR_COMM": errors.CommError, "CONCLAVE_ERROR_CANCELLED": errors.CancelledError,
    "CONCLAVE_ERROR_INTERNAL": errors.InternalError, "CONCLAVE_ERROR_BUSY": errors.BusyError,
    "CONCLAVE_ERROR_CALLBACK": errors.Error,
}


def answers(questions):
    """What a C program, in which each expression is printed, says of them."""
    with tempfile.TemporaryDirectory() as scratch:
        source, program = os.path.join(scratch, "abi.c"), os.path.join(scratch, "abi")
        with open(source, "w") as f:
            f.write("#include <conclave.h>\n#include <stdio.h>\nint main(void) {\n")
            f.writelines(f'    printf("%ld\\n", (long)({question}));\n' for question in questions)
            f.write("    return 0;\n}\n")
        code, out, err = run(os.environ["CONCLAVE_CC"], "-std=c99", "-I", API, source, "-o", program)
        assert code == 0, err
        return [int(line) for line in run(program)[1].split()]


class Abi(unittest.TestCase):
    def compare(self, expected):
        for (question, wanted), found in zip(expected.items(), answers(expected)):
            self.assertEqual(found, wanted, question)

    def test_structs(self):
        expected = {}
        for name, struct in _abi.STRUCTS.items():
            expected[f"sizeof({name})"] = ctypes.sizeof(struct)
            for field, _ in struct._fields_:
                expected[f"offsetof({name}, {field})"] = getattr(struct, field).offset
                expected[f"sizeof((({name}*)0)->{field})"] = getattr(struct, field).size
        self.assertGreater(len(expected), 150)
        self.compare(expected)

    def test_constants(self):
        self.compare(CONSTANTS)
        numbers = dict(zip(CLASSES, answers(CLASSES)))
        for name, number in numbers.items():
            self.assertIs(type(errors.error_of(number, "")), CLASSES[name], name)

    def test_names(self):
        """Each function that is declared is the header's; so are the options of engine and sequence."""
        text = ""
        for header in "conclave.h", "conclave_mpi.h":
            with open(os.path.join(API, header)) as f:
                text += f.read()
        arguments = dict(re.findall(r"CONCLAVE_C_API [^;]*?\b(conclave_\w+)\(([^)]*)\);", text))
        for name, types in _abi._STATUS_FUNCTIONS.items():
            self.assertEqual(arguments[name].count(",") + 1, len(types), name)
        self.assertIn("conclave_engine_create", arguments)
        self.assertIn("conclave_comm_mpi_address", arguments)
        for name in _abi._OTHER_FUNCTIONS:
            self.assertIn(name, arguments)

    def test_options_are_fields(self):
        from conclave import EngineOptions, SequenceOptions

        for options, struct in ((EngineOptions, _abi.EngineConfig), (SequenceOptions, _abi.SequenceConfig)):
            fields = {name for name, _ in struct._fields_}
            self.assertLess(set(options.__annotations__), fields)

    def test_the_library_knows_the_sizes(self):
        config = _abi.EngineConfig()
        init = _library.library.conclave_engine_config_init
        self.assertEqual(init(ctypes.byref(config), ctypes.sizeof(config)), _abi.OK)
        self.assertEqual(config.struct_size, ctypes.sizeof(config))
        self.assertNotEqual(init(ctypes.byref(config), 3), _abi.OK)


if __name__ == "__main__":
    unittest.main()
