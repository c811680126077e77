/* A JSON document as a tree, read only: what the emulated driver needs, and no more. */
#ifndef SHARDGATE_TESTS_JSON_H
#define SHARDGATE_TESTS_JSON_H

#include <stdbool.h>
#include <stddef.h>

typedef struct json {
    enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_LIST, JSON_OBJECT } kind;
    char *text;          /* a string's content, or a number as it is written */
    bool truth;
    char *key;           /* of a member of an object */
    struct json *first;  /* of a list or an object */
    struct json *next;   /* beside it */
} json;

/* NULL where the text is no JSON. */
json *json_parse(const char *text);
void json_free(json *node);

/* All of these take NULL for a node that is not there. */
const json *json_member(const json *object, const char *key);
const json *json_item(const json *list, size_t place);
size_t json_length(const json *list);
unsigned long long json_number(const json *node); /* negative numbers wrap around, as a driver's would */
const char *json_text(const json *node);

#endif
