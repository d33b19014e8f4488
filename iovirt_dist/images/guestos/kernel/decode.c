/* Opcodes from Intel SDM volume 2: IN E4 E5 EC ED, OUT E6 E7 EE EF, INS 6C 6D, OUTS 6E 6F. */
#include "decode.h"

#include "format.h"
#include "usercopy.h"

enum { CODE_BYTES = 4, PREFIX_OPERAND_SIZE = 0x66, PREFIX_REPNE = 0xF2, PREFIX_REP = 0xF3 };

void print_to(char *text, size_t size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    format_text(text, size, format, arguments);
    va_end(arguments);
}

static const char *fixed_name(uint8_t opcode)
{
    switch (opcode) {
    case 0xFA:
        return "cli";
    case 0xFB:
        return "sti";
    case 0xF4:
        return "hlt";
    case 0xCD:
        return "int";
    default:
        return NULL;
    }
}

static void print_in_out(const struct trap_frame *frame, const uint8_t *code, const char *wide,
                         char *text, size_t size)
{
    const char *data = code[0] & 1 ? wide : "al";
    bool immediate = !(code[0] & 0x08);
    const char *where = immediate ? "imm8" : "dx";
    unsigned port = immediate ? code[1] : frame->edx & 0xFFFF;

    if (code[0] & 0x02)
        print_to(text, size, "out %s, %s port 0x%x", where, data, port);
    else
        print_to(text, size, "in %s, %s port 0x%x", data, where, port);
}

void decode_instruction(const struct trap_frame *frame, char *text, size_t size)
{
    uint8_t bytes[CODE_BYTES] = {0};
    const uint8_t *code = bytes;
    const char *repeat = "";
    bool word = false;
    uint8_t opcode;

    /* The program's last page may end within the instruction: bytes that are not there stay 0. */
    for (unsigned i = 0; i < CODE_BYTES; i++)
        if (copy_from_user(&bytes[i], frame->eip + i, 1) != 0)
            break;
    for (unsigned i = 0; i < 2; i++, code++) {
        if (*code == PREFIX_OPERAND_SIZE)
            word = true;
        else if (*code == PREFIX_REP || *code == PREFIX_REPNE)
            repeat = "rep ";
        else
            break;
    }
    opcode = *code;
    if (fixed_name(opcode) != NULL)
        print_to(text, size, "%s", fixed_name(opcode));
    else if (opcode >= 0x6C && opcode <= 0x6F)
        print_to(text, size, "%s%s%c port 0x%x", repeat, opcode & 2 ? "outs" : "ins",
                 !(opcode & 1) ? 'b' : word ? 'w' : 'd', frame->edx & 0xFFFF);
    else if ((opcode & 0xF4) == 0xE4)
        print_in_out(frame, code, word ? "ax" : "eax", text, size);
    else
        print_to(text, size, "code %02x %02x %02x %02x", bytes[0], bytes[1], bytes[2], bytes[3]);
}
