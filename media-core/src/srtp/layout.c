/* What ffi.rs says of libsrtp's structures, asserted against the headers of the libsrtp that is linked. Nothing of this is linked. */

#include <stddef.h>

#include <srtp2/auth.h>
#include <srtp2/cipher.h>
#include <srtp2/crypto_types.h>
#include <srtp2/srtp.h>

#define SIZE(type, pointers, rest) _Static_assert(sizeof(type) == (pointers) * sizeof(void *) + (rest), #type)
#define AT(type, field, pointers, rest) \
    _Static_assert(offsetof(type, field) == (pointers) * sizeof(void *) + (rest), #type "." #field)
#define IS(name, value) _Static_assert((name) == (value), #name)

_Static_assert(sizeof(void *) == 8 && sizeof(long) == 8 && sizeof(int) == 4, "LP64");
_Static_assert(sizeof(srtp_err_status_t) == 4 && sizeof(srtp_ssrc_type_t) == 4 && sizeof(srtp_sec_serv_t) == 4 &&
                   sizeof(srtp_cipher_direction_t) == 4 && sizeof(srtp_cipher_type_id_t) == 4 &&
                   sizeof(srtp_auth_type_id_t) == 4,
               "enumerations");

SIZE(srtp_ssrc_t, 0, 8);
AT(srtp_ssrc_t, type, 0, 0);
AT(srtp_ssrc_t, value, 0, 4);

SIZE(srtp_crypto_policy_t, 0, 24);
AT(srtp_crypto_policy_t, cipher_type, 0, 0);
AT(srtp_crypto_policy_t, cipher_key_len, 0, 4);
AT(srtp_crypto_policy_t, auth_type, 0, 8);
AT(srtp_crypto_policy_t, auth_key_len, 0, 12);
AT(srtp_crypto_policy_t, auth_tag_len, 0, 16);
AT(srtp_crypto_policy_t, sec_serv, 0, 20);

SIZE(srtp_policy_t, 9, 56);
AT(srtp_policy_t, ssrc, 0, 0);
AT(srtp_policy_t, rtp, 0, 8);
AT(srtp_policy_t, rtcp, 0, 32);
AT(srtp_policy_t, key, 0, 56);
AT(srtp_policy_t, keys, 1, 56);
AT(srtp_policy_t, num_master_keys, 2, 56);
/* Between these stands a pointer that libsrtp renamed: ekt, then deprecated_ekt. */
AT(srtp_policy_t, window_size, 4, 56);
AT(srtp_policy_t, allow_repeat_tx, 5, 56);
AT(srtp_policy_t, enc_xtn_hdr, 6, 56);
AT(srtp_policy_t, enc_xtn_hdr_count, 7, 56);
AT(srtp_policy_t, next, 8, 56);

SIZE(srtp_cipher_type_t, 11, 0);
AT(srtp_cipher_type_t, alloc, 0, 0);
AT(srtp_cipher_type_t, dealloc, 1, 0);
AT(srtp_cipher_type_t, init, 2, 0);
AT(srtp_cipher_type_t, set_aad, 3, 0);
AT(srtp_cipher_type_t, encrypt, 4, 0);
AT(srtp_cipher_type_t, decrypt, 5, 0);
AT(srtp_cipher_type_t, set_iv, 6, 0);
AT(srtp_cipher_type_t, get_tag, 7, 0);
AT(srtp_cipher_type_t, description, 8, 0);
AT(srtp_cipher_type_t, test_data, 9, 0);
AT(srtp_cipher_type_t, id, 10, 0);

SIZE(srtp_cipher_t, 3, 0);
AT(srtp_cipher_t, type, 0, 0);
AT(srtp_cipher_t, state, 1, 0);
AT(srtp_cipher_t, key_len, 2, 0);
AT(srtp_cipher_t, algorithm, 2, 4);

SIZE(srtp_auth_type_t, 9, 0);
AT(srtp_auth_type_t, alloc, 0, 0);
AT(srtp_auth_type_t, dealloc, 1, 0);
AT(srtp_auth_type_t, init, 2, 0);
AT(srtp_auth_type_t, compute, 3, 0);
AT(srtp_auth_type_t, update, 4, 0);
AT(srtp_auth_type_t, start, 5, 0);
AT(srtp_auth_type_t, description, 6, 0);
AT(srtp_auth_type_t, test_data, 7, 0);
AT(srtp_auth_type_t, id, 8, 0);

SIZE(srtp_auth_t, 4, 0);
AT(srtp_auth_t, type, 0, 0);
AT(srtp_auth_t, state, 1, 0);
AT(srtp_auth_t, out_len, 2, 0);
AT(srtp_auth_t, key_len, 2, 4);
AT(srtp_auth_t, prefix_len, 3, 0);

IS(SRTP_AES_ICM_128, 1);
IS(SRTP_AES_ICM_256, 5);
IS(SRTP_AES_GCM_128, 6);
IS(SRTP_AES_GCM_256, 7);
IS(SRTP_HMAC_SHA1, 3);
IS(SRTP_AES_ICM_128_KEY_LEN_WSALT, 30);
IS(SRTP_AES_ICM_256_KEY_LEN_WSALT, 46);
IS(SRTP_AES_GCM_128_KEY_LEN_WSALT, 28);
IS(SRTP_AES_GCM_256_KEY_LEN_WSALT, 44);
IS(SRTP_MAX_TRAILER_LEN, 144);
IS(sec_serv_none, 0);
IS(ssrc_any_inbound, 2);
IS(ssrc_any_outbound, 3);
IS(srtp_err_status_ok, 0);
IS(srtp_err_status_bad_param, 2);
IS(srtp_err_status_alloc_fail, 3);
IS(srtp_err_status_init_fail, 5);
IS(srtp_err_status_auth_fail, 7);
IS(srtp_err_status_cipher_fail, 8);
IS(srtp_err_status_replay_fail, 9);
IS(srtp_err_status_replay_old, 10);
IS(srtp_err_status_key_expired, 15);
IS(srtp_err_status_parse_err, 21);
IS(srtp_err_status_pkt_idx_old, 26);

/* The functions, by their types. */
_Static_assert(__builtin_types_compatible_p(__typeof__(srtp_init), srtp_err_status_t(void)), "srtp_init");
_Static_assert(__builtin_types_compatible_p(__typeof__(srtp_create), srtp_err_status_t(srtp_t *, const srtp_policy_t *)),
               "srtp_create");
_Static_assert(__builtin_types_compatible_p(__typeof__(srtp_dealloc), srtp_err_status_t(srtp_t)), "srtp_dealloc");
_Static_assert(__builtin_types_compatible_p(__typeof__(srtp_remove_stream), srtp_err_status_t(srtp_t, unsigned int)),
               "srtp_remove_stream");
_Static_assert(__builtin_types_compatible_p(__typeof__(srtp_get_stream_roc),
                                            srtp_err_status_t(srtp_t, uint32_t, uint32_t *)),
               "srtp_get_stream_roc");
#define TRANSFORM(name) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), srtp_err_status_t(srtp_t, void *, int *)), #name)
TRANSFORM(srtp_protect);
TRANSFORM(srtp_protect_rtcp);
TRANSFORM(srtp_unprotect);
TRANSFORM(srtp_unprotect_rtcp);
#define POLICY(name) _Static_assert(__builtin_types_compatible_p(__typeof__(name), void(srtp_crypto_policy_t *)), #name)
POLICY(srtp_crypto_policy_set_rtp_default);
POLICY(srtp_crypto_policy_set_aes_gcm_128_16_auth);
POLICY(srtp_crypto_policy_set_aes_gcm_256_16_auth);
_Static_assert(__builtin_types_compatible_p(__typeof__(srtp_replace_cipher_type),
                                            srtp_err_status_t(const srtp_cipher_type_t *, srtp_cipher_type_id_t)),
               "srtp_replace_cipher_type");
_Static_assert(__builtin_types_compatible_p(__typeof__(srtp_replace_auth_type),
                                            srtp_err_status_t(const srtp_auth_type_t *, srtp_auth_type_id_t)),
               "srtp_replace_auth_type");
